"""Grids of images."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from gan.telemetry.grids import grid, to_uint8, write_picture


def test_a_grid_is_filled_row_by_row(tmp_path: Path) -> None:
    images = torch.linspace(-1, 1, 5)[:, None, None, None].expand(5, 1, 2, 3)
    pixels = to_uint8(images)
    assert pixels[:, 0, 0, 0].tolist() == [0, 64, 128, 191, 255]
    picture = np.asarray(grid(pixels))
    assert picture.shape == (2 * 2, 3 * 3)
    assert picture[::2, ::3].tolist() == [[0, 64, 128], [191, 255, 255]]
    for count, shape in ((21, (3, 7)), (64, (8, 8)), (70, (7, 10)), (3, (2, 2)), (7, (3, 3)), (1, (1, 1))):
        assert np.asarray(grid(np.zeros((count, 1, 1, 3), np.uint8))).shape == (*shape, 3)
    for channels, mode in ((1, "L"), (3, "RGB"), (4, "RGBA")):
        write_picture(grid(np.zeros((2, 4, 4, channels), np.uint8)), tmp_path / "grid.png")
        with Image.open(tmp_path / "grid.png") as written:
            assert written.mode == mode
    assert [path.name for path in tmp_path.iterdir()] == ["grid.png"]


def test_pixels_survive_the_way_in_and_out() -> None:
    from gan.data.batches import to_unit_range

    levels = torch.arange(256, dtype=torch.uint8).reshape(4, 8, 8, 1)
    assert (to_uint8(to_unit_range(levels, torch.float32)) == levels.numpy()).all()
