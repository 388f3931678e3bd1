"""One image file → one square of uint8 pixels."""

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageColor, ImageOps

BACKGROUND = "white"
MODES = {1: "L", 3: "RGB", 4: "RGBA"}
FILTER = Image.Resampling.BILINEAR  # antialiased when it shrinks; what torchvision.transforms.Resize does


def crop(image: Image.Image, side: int, background: str) -> Image.Image:
    """Resize the short side to `side`, then cut out the centre (torchvision's Resize + CenterCrop)."""
    short = min(image.size)
    if max(image.size) > 16 * short:  # cut the far ends off first: enlarged, they would only cost memory
        left, top = ((length - min(length, 16 * short)) // 2 for length in image.size)
        image = image.crop((left, top, image.width - left, image.height - top))
    width, height = (side * length // short for length in image.size)
    left, top = round((width - side) / 2), round((height - side) / 2)
    return image.resize((width, height), FILTER).crop((left, top, left + side, top + side))


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
    unless `channels` is 4, which keeps alpha. Raises ValueError for pixels whose range is not known."""
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    elif image.mode in ("I", "F"):
        raise ValueError(f"pixels of mode {image.mode!r} have no fixed range; save the image with 8 or 16 bits")
    if channels != 4 and image.has_transparency_data:
        image = image.convert("RGBA")
        ground = Image.new("RGBA", image.size, background)
        image = Image.alpha_composite(ground, image)
    square = FITS[fit](image.convert(MODES[channels]), resolution, background)
    return np.asarray(square).reshape(resolution, resolution, channels)
