"""Moving pictures: the sample grids of a run as one, and films of any pictures."""

import contextlib
import io
import itertools
import re
from collections.abc import Callable, Iterable
from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

from gan.errors import UsageError
from gan.telemetry.grids import evenly

FRAMES, WIDEST, SMALLEST = 60, 512, 160
"""How many frames at most; pixels across a frame at most, and at least."""
LIMIT_BYTES = 3_500_000
"""A picture that would be larger is made narrower, so that it fits a page or a mail."""
FRAME_MS, LAST_MS = 150, 2500
CAPTION = 22
"""Pixels below a frame for its iteration."""


def grids_of(samples: Path) -> list[Path]:
    """The sample grids of the finest scale, oldest first."""
    named = [path for path in samples.glob("iteration-*.png") if re.fullmatch(r"iteration-\d{8}\.png", path.name)]
    return sorted(named)


def open_picture(path: Path) -> Image.Image | None:
    """A picture in RGB, what is transparent on white; None where it is missing or damaged."""
    with contextlib.suppress(OSError, SyntaxError, ValueError, Image.DecompressionBombError), Image.open(path) as found:
        return on_white(found)
    return None


def on_white(picture: Image.Image) -> Image.Image:
    """In RGB, what is transparent on white."""
    if "A" not in picture.getbands() and "transparency" not in picture.info:
        return picture.convert("RGB")
    white = Image.new("RGBA", picture.size, "white")
    return Image.alpha_composite(white, picture.convert("RGBA")).convert("RGB")


def animation(samples: Path) -> bytes | None:
    """GIF of the sample grids, endless, the last one held; None where there is none. In memory are one grid at a time
    and the small frames."""
    paths = grids_of(samples)
    paths = [paths[index] for index in evenly(len(paths), FRAMES)] if paths else []
    last = next((picture for path in reversed(paths) if (picture := open_picture(path))), None)
    if last is None:
        return None
    size = frame_size(last, len(paths))
    frames = [frame(picture, path, size) for path in paths if (picture := open_picture(path))]
    return as_gif(frames, FRAME_MS, LAST_MS)


def gif(pictures: Iterable[Image.Image], frame_ms: int) -> bytes:
    """Of pictures of any kind, endless and even, at most WIDEST pixels across."""
    frames = []
    for picture in map(on_white, pictures):
        picture.thumbnail((WIDEST, picture.height))
        frames.append(picture.quantize(256, Image.Quantize.FASTOCTREE))
    return as_gif(frames, frame_ms, frame_ms)


def mp4(pictures: Iterable[Image.Image], frame_ms: int) -> bytes:
    """Of pictures of any kind, with even sides, by PyAV. Raises UsageError where it is not installed."""
    try:
        import av  # an extra: most films are small enough to be a GIF
    except ImportError:
        raise UsageError("an .mp4 needs PyAV: pip install 'av>=14', or choose .gif.") from None
    codec = next(name for name in ("libx264", "mpeg4") if name in av.codecs_available)
    file, frames = io.BytesIO(), map(on_white, pictures)
    first = next(frames)
    with av.open(file, "w", "mp4") as container:
        stream = container.add_stream(codec, Fraction(1000, frame_ms), {"crf": "18"} if codec == "libx264" else {})
        stream.width, stream.height = first.size
        for picture in itertools.chain([first], frames):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.asarray(picture))))
        container.mux(stream.encode(None))
    return file.getvalue()


FILMS: dict[str, Callable[[Iterable[Image.Image], int], bytes]] = {".gif": gif, ".mp4": mp4}
"""Films by their suffix: (pictures, milliseconds of each) → a file."""


def frame_size(picture: Image.Image, count: int) -> tuple[int, int]:
    """Width and height for `count` frames of such pictures: no wider than WIDEST, no larger than LIMIT_BYTES together,
    and, however small the picture, wide enough for a caption."""
    width = min(picture.width, WIDEST)
    trial = as_gif([frame(picture, Path("iteration-0"), (width, scaled(picture, width)))], FRAME_MS, LAST_MS)
    width = int(width * min(1, (LIMIT_BYTES / (len(trial) * count)) ** 0.5))
    if width < SMALLEST:
        width = picture.width * -(-SMALLEST // picture.width) if picture.width < SMALLEST else SMALLEST
    return width, scaled(picture, width)


def scaled(picture: Image.Image, width: int) -> int:
    """The height that belongs to a width."""
    return max(1, round(picture.height * width / picture.width))


def frame(picture: Image.Image, path: Path, size: tuple[int, int]) -> Image.Image:
    """The picture at that size, its iteration below it, in 256 colours."""
    way = Image.Resampling.NEAREST if picture.width < size[0] else Image.Resampling.LANCZOS
    drawn = Image.new("RGB", (size[0], size[1] + CAPTION), "white")
    drawn.paste(ImageOps.pad(picture, size, way, color="white"))
    text = f"iteration {int(path.stem.removeprefix('iteration-'))}"
    ImageDraw.Draw(drawn).text((size[0] / 2, size[1] + CAPTION / 2), text, "black", ImageFont.load_default(13), "mm")
    return drawn.quantize(256, Image.Quantize.FASTOCTREE)  # a hundred times faster than the best choice of colours


def as_gif(frames: list[Image.Image], frame_ms: int, last_ms: int) -> bytes:
    """Endless; so many milliseconds for each frame, and for the last."""
    file, times = io.BytesIO(), [*([frame_ms] * (len(frames) - 1)), last_ms]
    frames[0].save(file, format="gif", save_all=True, append_images=frames[1:], loop=0, duration=times)
    return file.getvalue()
