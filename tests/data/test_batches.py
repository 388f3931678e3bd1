import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from gan.config import Config, DataOptions
from gan.data.batches import Batches, copy_to, is_resident, pyramid, to_unit_range
from gan.data.pack import Pack, open_pack
from gan.errors import UsageError
from gan.randomness import image_order


def packed(images: Path, cache: Path) -> Pack:
    return open_pack(Config(data=str(images), resolution=16, data_options=DataOptions(cache=cache)))


def test_batches_are_the_same_wherever_the_images_live(images: Path, tmp_path: Path) -> None:
    pack = packed(images, tmp_path)
    cpu = torch.device("cpu")
    mapped, resident = (Batches(pack.images, 8, 3, 1, 2, cpu, torch.float32, resident=where) for where in (False, True))
    for position in (0, 16, 96):
        assert mapped.at(position).equal(resident.at(position))
    assert isinstance(resident.images, torch.Tensor)
    assert (copy_to(cpu, pack.images, block=8).numpy() == pack.images).all(), "in three blocks, the last one shorter"
    assert not is_resident("auto", cpu, 1)
    assert not is_resident("disk", cpu, 1)
    with pytest.raises(UsageError, match="needs a GPU, and this run is on the cpu"):
        is_resident("gpu", cpu, 1)


def test_batches_read_ahead_are_the_same(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In order, twice, back and with a jump; what follows is read before it is asked for."""
    pack, cpu = packed(images, tmp_path), torch.device("cpu")
    ahead, plain = (Batches(pack.images, 8, 3, 1, 2, cpu, torch.float32, prefetch=wish) for wish in (True, False))
    by_others, read = [], Batches.read

    def noted(self: Batches, position: int) -> np.ndarray:
        if threading.current_thread() is not threading.main_thread():
            by_others.append(position)
        return read(self, position)

    monkeypatch.setattr(Batches, "read", noted)
    for position in (0, 8, 16, 16, 24, 4, 64):
        assert ahead.at(position).equal(plain.at(position))
    assert ahead.ahead is not None
    ahead.ahead[1].result()
    assert by_others == [8, 16, 24, 32, 12, 72]
    assert plain.thread is None


def test_batches_are_the_images_of_the_stream_in_unit_range(images: Path, tmp_path: Path) -> None:
    pack = packed(images, tmp_path)
    cpu = torch.device("cpu")
    whole = Batches(pack.images, 8, 3, 0, 1, cpu, torch.float64).at(16)  # positions 16 … 23 cross a pass
    expected = pack.images[image_order(3, 20, 16, 8)].transpose(0, 3, 1, 2) / 127.5 - 1
    torch.testing.assert_close(whole, torch.from_numpy(expected), rtol=0, atol=1e-15)
    assert whole.is_contiguous(memory_format=torch.channels_last)
    halves = [Batches(pack.images, 8, 3, rank, 2, cpu, torch.float64).at(16) for rank in (0, 1)]
    assert torch.cat(halves).equal(whole)


def test_each_scale_is_the_mean_of_the_finer_ones_pixels() -> None:
    finest = torch.randn(2, 3, 16, 16, dtype=torch.float64)
    images = pyramid(finest, 3)
    assert images[0] is finest
    for scale, image in enumerate(images):
        side = 2**scale
        tiles = finest.reshape(2, 3, 16 // side, side, 16 // side, side)
        torch.testing.assert_close(image, tiles.mean((3, 5)), rtol=0, atol=1e-15)


def test_unit_range_is_exact_at_its_ends() -> None:
    ends = torch.tensor([0, 255], dtype=torch.uint8).reshape(2, 1, 1, 1)
    assert to_unit_range(ends, torch.float32).flatten().tolist() == [-1, 1]
    assert np.isclose(to_unit_range(ends + 51, torch.float64)[0].item(), 51 / 127.5 - 1, rtol=0, atol=1e-15)
