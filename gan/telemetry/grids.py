"""Images as pictures to look at. Torch is not imported, so that a report can use this too."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from einops import rearrange
from PIL import Image

from gan.files import replace_file

if TYPE_CHECKING:
    from torch import Tensor


def to_uint8(images: Tensor) -> np.ndarray:
    """Floating (N, C, H, W) in [−1, 1] → uint8 (N, H, W, C), rounded to the nearest of 256 levels."""
    levels = images.float().add(1).mul(127.5).round().clamp(0, 255).byte()
    return rearrange(levels, "n c h w -> n h w c").cpu().numpy()


def grid(pixels: np.ndarray, columns: int | None = None) -> Image.Image:
    """uint8 (N, H, W, C) → one picture, filled row by row; empty places are white."""
    count, height, width, channels = pixels.shape
    columns = columns or pleasing_columns(count)
    rows = math.ceil(count / columns)
    filler = np.full((rows * columns - count, height, width, channels), 255, np.uint8)
    tiles = np.concatenate([pixels, filler])
    return to_image(rearrange(tiles, "(r c) h w ch -> (r h) (c w) ch", r=rows))


def pleasing_columns(count: int) -> int:
    """As square as can be without empty places, up to 5 : 2 (21 images are 3 × 7); else as square as can be."""
    square = math.ceil(math.sqrt(count))
    full = [columns for columns in range(square, count + 1) if count % columns == 0 and 2 * columns**2 <= 5 * count]
    return full[0] if full else square


def evenly(total: int, count: int) -> np.ndarray:
    """Up to `count` numbers below `total`, as far apart as can be."""
    return np.linspace(0, total - 1, min(count, total)).astype(int)


def to_image(pixels: np.ndarray) -> Image.Image:
    """uint8 (H, W, C) with C = 1, 3 or 4 → an L, RGB or RGBA image."""
    return Image.fromarray(pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels)


def write_picture(picture: Image.Image, path: Path) -> None:
    """Save as PNG. Raises OSError."""
    content = io.BytesIO()
    picture.save(content, format="png")
    replace_file(path, content.getvalue())
