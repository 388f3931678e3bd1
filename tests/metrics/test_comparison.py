"""The images that are compared, and which process computes what of them."""

import numpy as np
import pytest
import torch
from torch import Tensor

from gan.metrics.comparison import Shards, to_rgb
from tests.metrics.conftest import Processes


@pytest.mark.parametrize("count", [40, 150, 64 * 5])
@pytest.mark.parametrize("processes", [1, 2, 3])
def test_every_image_is_one_process_work(processes: int, count: int) -> None:
    """In order, in blocks that are the same for any number of processes, also where some have none."""
    rows, blocks = [], []

    def compute(block: range) -> Tensor:
        blocks.append(block)
        return torch.arange(block.start, block.stop)[:, None] * torch.tensor([1, 10])

    for rank in range(processes):
        shards = Shards(Processes(processes, rank), count, resolution=64)  # type: ignore[arg-type]
        own = shards.map(compute, "")
        assert len(own) == len(shards.rows)
        rows.append(torch.nn.functional.pad(own, (0, 0, 0, shards.share - len(own))))
    assert torch.cat(rows)[:count].equal(torch.arange(count)[:, None] * torch.tensor([1, 10]))
    assert set(blocks) == {range(start, min(start + 64, count)) for start in range(0, count, 64)}


def test_large_images_come_in_smaller_blocks() -> None:
    assert Shards(Processes(), 100, resolution=256).blocks[0] == range(16)  # type: ignore[arg-type]
    assert Shards(Processes(), 100, resolution=2048).blocks[0] == range(1)  # type: ignore[arg-type]


def test_every_image_has_three_channels() -> None:
    grey = np.array([[[[7]]]], np.uint8)
    assert to_rgb(grey, (0, 0, 0)).tolist() == [[[[7, 7, 7]]]]
    assert to_rgb(np.array([[[[1, 2, 3]]]], np.uint8), (0, 0, 0)).tolist() == [[[[1, 2, 3]]]]
    half = np.array([[[[200, 100, 0, 51]]]], np.uint8)  # a fifth
    assert to_rgb(half, (250, 0, 100)).tolist() == [[[[240, 20, 80]]]]
    assert to_rgb(np.array([[[[9, 9, 9, 255], [9, 9, 9, 0]]]], np.uint8), (255, 1, 2)).tolist() == [
        [[[9, 9, 9], [255, 1, 2]]]
    ]
