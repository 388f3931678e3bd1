"""One image file → one square of uint8 pixels."""

import contextlib
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageColor, ImageOps
from PIL.GifImagePlugin import GifImageFile
from PIL.PngImagePlugin import PngImageFile

BACKGROUND = "white"
MODES = {1: "L", 3: "RGB", 4: "RGBA"}
FILTER = Image.Resampling.BILINEAR  # antialiased when it shrinks; what torchvision.transforms.Resize does
ORIENTED = {"exif", "xmp", "Raw profile type exif", "Raw profile type APP1", "XML:com.adobe.xmp"}
"""Where Pillow keeps what may say how to turn the picture. A TIFF it turns by itself."""
BITS_PER_SAMPLE, PHOTOMETRIC, TILE_WIDTH, TILE_LENGTH = 258, 262, 322, 323  # TIFF's tags


def crop(image: Image.Image, side: int, background: str) -> Image.Image:
    """Resize the short side to `side`, then cut out the centre: torchvision's Resize + CenterCrop, less what is cut."""
    short = min(image.size)
    resized = [side * length // short for length in image.size]
    start = [round((length - side) / 2) for length in resized]
    (left, right), (top, bottom) = (
        (at * length / to, (at + side) * length / to) for at, length, to in zip(start, image.size, resized, strict=True)
    )
    return image.resize((side, side), FILTER, box=(left, top, right, bottom))


def squash(image: Image.Image, side: int, background: str) -> Image.Image:
    """Resize both sides to `side`, whatever the proportions."""
    return image.resize((side, side), FILTER)


def pad(image: Image.Image, side: int, background: str) -> Image.Image:
    """Resize the long side to `side` and centre the image on the background."""
    long = max(image.size)
    small = image.resize([max(1, side * length // long) for length in image.size], FILTER)
    ground = (*ImageColor.getrgb(background)[:3], 0) if image.mode == "RGBA" else background
    square = Image.new(image.mode, (side, side), ground)
    square.paste(small, ((side - small.width) // 2, (side - small.height) // 2))
    return square


FITS: dict[str, Callable[[Image.Image, int, str], Image.Image]] = {"crop": crop, "squash": squash, "pad": pad}


def to_pixels(image: Image.Image, resolution: int, channels: int, fit: str, background: str) -> np.ndarray:
    """uint8 (resolution, resolution, channels). Turned upright by its EXIF tag; transparency shows `background`,
    unless `channels` is 4, which keeps alpha. Raises ValueError for pixels whose range is not known, and whatever
    Pillow raises for a file it cannot decode."""
    mend_transparent_colour(image)
    frame = image.tile[0].extents if isinstance(image, GifImageFile) and image.tile else None
    image.load()
    if frame not in (None, (0, 0, *image.size)) and not image.has_transparency_data:
        image = around_transparent(image, frame)
    if image.info.keys() & ORIENTED:
        with contextlib.suppress(Exception):  # a damaged tag is no reason to leave out a picture that is whole
            ImageOps.exif_transpose(image, in_place=True)
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PPM"):
        image = to_eight_bits(image)
    elif image.mode in ("I", "F"):
        raise ValueError(f"pixels of mode {image.mode!r} have no fixed range; save the image with 8 or 16 bits")
    if image.mode == "La":
        image = image.convert("LA")
    mode = "RGBA" if image.has_transparency_data else MODES[channels]
    square = image if image.mode == mode else image.convert(mode)
    if square.size != (resolution, resolution):
        square = FITS[fit](square, resolution, background)
    if mode == "RGBA" and channels != 4:  # after resizing, which weighs colours by alpha: the same, on fewer pixels
        square = Image.alpha_composite(Image.new("RGBA", square.size, background), square)
    if square.mode != MODES[channels]:
        square = square.convert(MODES[channels])
    return np.frombuffer(square.tobytes(), np.uint8).reshape(resolution, resolution, channels)


def pixels_to_decode(image: Image.Image) -> int:
    """By the header: of the picture, or of one TIFF tile where that is larger."""
    tags = getattr(image, "tag_v2", {})
    return max(image.width * image.height, tags.get(TILE_WIDTH, 0) * tags.get(TILE_LENGTH, 0))


def mend_transparent_colour(image: Image.Image) -> None:
    """Where a PNG names its transparent colour (tRNS) in other bits than Pillow decodes to, translate it."""
    key = image.info.get("transparency")
    if not isinstance(image, PngImageFile) or not image.tile or key is None:
        return
    raw = image.tile[0].args
    if raw in ("L;2", "L;4"):
        image.info["transparency"] = key * {"L;2": 85, "L;4": 17}[raw]
    elif raw == "RGB;16B":
        image.info["transparency"] = tuple(value >> 8 for value in key)


def around_transparent(image: Image.Image, frame: tuple[int, int, int, int]) -> Image.Image:
    """What a GIF's first frame leaves free of its screen shows what is behind, as in a browser; Pillow fills it."""
    screen = Image.new("RGBA", image.size)
    screen.paste(image.crop(frame).convert("RGBA"), frame)
    return screen


def to_eight_bits(image: Image.Image) -> Image.Image:
    """Grey of 16 bits (12 in some TIFFs), scaled to 8; a transparent value becomes alpha."""
    tags = getattr(image, "tag_v2", {})
    values, top = np.asarray(image).astype(np.uint32), 2 ** tags.get(BITS_PER_SAMPLE, (16,))[0] - 1
    if tags.get(PHOTOMETRIC) == 0:  # white is zero, which Pillow heeds for 8 bits alone
        values = top - values.clip(max=top)
    grey = Image.fromarray(((values.clip(max=top) * 255 + top // 2) // top).astype(np.uint8))
    if (key := image.info.get("transparency")) is not None:
        grey.putalpha(Image.fromarray(np.where(values == key, 0, 255).astype(np.uint8)))
    return grey
