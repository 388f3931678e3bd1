import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torchvision.transforms import CenterCrop, Compose, Resize

from gan.data.pixels import to_pixels


def uniform(mode: str, colour: object, **info: object) -> Image.Image:
    image = Image.new(mode, (8, 8), colour)  # type: ignore[arg-type]
    image.info.update(info)
    return image


def first_pixel(image: Image.Image, channels: int = 3, background: str = "white") -> list[int]:
    pixels = to_pixels(image, 16, channels, "squash", background)
    assert pixels.shape == (16, 16, channels)
    assert pixels.dtype == np.uint8
    assert (pixels == pixels[0, 0]).all()
    return pixels[0, 0].tolist()  # type: ignore[no-any-return]


def test_modes() -> None:
    assert first_pixel(uniform("RGB", (1, 2, 3))) == [1, 2, 3]
    assert first_pixel(uniform("L", 77)) == [77, 77, 77]
    assert first_pixel(uniform("1", 1)) == [255, 255, 255]
    assert first_pixel(uniform("CMYK", (0, 255, 255, 0))) == [255, 0, 0]
    assert first_pixel(uniform("RGB", (10, 10, 10)), channels=1) == [10]


def test_sixteen_bits_are_scaled_not_clipped(tmp_path: Path) -> None:
    Image.fromarray(np.full((8, 8), 0x40FF, np.uint16)).save(tmp_path / "deep.png")
    assert first_pixel(Image.open(tmp_path / "deep.png")) == [round(0x40FF / 257)] * 3
    with pytest.raises(ValueError, match="no fixed range"):
        first_pixel(uniform("F", 0.5))


def test_transparency_shows_the_background() -> None:
    half = round(200 * 128 / 255 + 255 * 127 / 255)
    assert first_pixel(uniform("RGBA", (200, 200, 200, 128))) == [half] * 3
    assert first_pixel(uniform("RGBA", (9, 9, 9, 0)), background="#0000ff") == [0, 0, 255]
    assert first_pixel(uniform("LA", (9, 0))) == [255] * 3
    assert first_pixel(uniform("RGB", (9, 8, 7), transparency=(9, 8, 7))) == [255] * 3
    assert first_pixel(uniform("RGBA", (10, 20, 30, 51)), channels=4) == [10, 20, 30, 51]


def test_transparent_palettes(tmp_path: Path) -> None:
    image = Image.new("P", (8, 8), 1)
    image.putpalette([250, 0, 0, 0, 250, 0])
    image.save(tmp_path / "opaque.png")
    image.save(tmp_path / "clear.png", transparency=1)
    assert first_pixel(Image.open(tmp_path / "opaque.png")) == [0, 250, 0]
    assert first_pixel(Image.open(tmp_path / "clear.png")) == [255, 255, 255]


def test_photos_are_turned_upright(tmp_path: Path) -> None:
    pixels = np.zeros((16, 16, 3), np.uint8)
    pixels[:8] = 255  # white above black, stored turned by 180 degrees
    exif = Image.Exif()
    exif[0x0112] = 3
    Image.fromarray(pixels).save(tmp_path / "photo.png", exif=exif)
    upright = to_pixels(Image.open(tmp_path / "photo.png"), 16, 3, "squash", "white")
    assert upright[0].max() == 0
    assert upright[-1].min() == 255


@pytest.mark.parametrize("size", [(100, 70), (70, 101), (33, 64), (20, 300)])
def test_crop_and_squash_equal_torchvisions(size: tuple[int, int]) -> None:
    """The crop to one level: which of a resize's two passes is first, and so is rounded first, is Pillow's choice."""
    rng = np.random.default_rng(1)
    image = Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))
    cropped = np.asarray(Compose([Resize(32), CenterCrop(32)])(image), dtype=int)
    assert np.abs(to_pixels(image, 32, 3, "crop", "white") - cropped).max() <= 1
    squashed = np.asarray(Resize((32, 32))(image))
    assert (to_pixels(image, 32, 3, "squash", "white") == squashed).all()


def test_a_very_long_image_costs_no_more_than_its_middle() -> None:
    """Enlarging the whole of it first would take 64 × 2,560,000 pixels, half a gigabyte and a second."""
    long = Image.new("RGB", (1, 40_000), (0, 0, 0))
    long.paste((200, 100, 50), (0, 19_990, 1, 20_010))
    began = time.process_time()
    assert (to_pixels(long, 64, 3, "crop", "white") == (200, 100, 50)).all()
    assert time.process_time() - began < 0.1


def test_pad_keeps_the_proportions() -> None:
    padded = to_pixels(Image.new("RGB", (64, 32), (10, 20, 30)), 16, 3, "pad", "#010203")
    assert (padded[4:12] == (10, 20, 30)).all()
    assert (padded[:4] == (1, 2, 3)).all()
    assert (padded[12:] == (1, 2, 3)).all()
    clear = to_pixels(Image.new("RGBA", (64, 32), (10, 20, 30, 51)), 16, 4, "pad", "white")
    assert (clear[:4, :, 3] == 0).all()
    assert (clear[4:12] == (10, 20, 30, 51)).all()
