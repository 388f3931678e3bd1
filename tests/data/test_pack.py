import csv
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from gan.config import Config, DataOptions
from gan.data.batches import Batches, pyramid, to_unit_range
from gan.data.pack import open_pack
from gan.data.pixels import to_pixels
from gan.errors import UsageError
from gan.randomness import image_order


def config_for(images: Path, cache: Path, **options: object) -> Config:
    return Config(data=str(images), resolution=16, data_options=DataOptions(cache=cache, **options))  # type: ignore[arg-type]


def test_a_pack_holds_every_image_in_order(images: Path, tmp_path: Path) -> None:
    pack = open_pack(config_for(images, tmp_path))
    assert pack.images.shape == (20, 16, 16, 3)
    for row, path in zip(pack.images, sorted(images.rglob("*.png"), key=str), strict=True):
        assert (row == to_pixels(Image.open(path), 16, 3, "crop", "white")).all()


def test_a_pack_is_made_once_and_again_when_something_changed(images: Path, tmp_path: Path) -> None:
    config = config_for(images, tmp_path)
    first = open_pack(config)
    written = (first.folder / "images.bin").stat().st_mtime_ns
    assert (open_pack(config).folder / "images.bin").stat().st_mtime_ns == written
    squashed = open_pack(config_for(images, tmp_path, fit="squash"))
    assert squashed.folder != first.folder
    assert squashed.content != first.content
    assert open_pack(replace(config, channels=1)).images.shape == (20, 16, 16, 1)


@pytest.mark.parametrize("damage", ["truncated", "no index", "broken index", "wrong shape"])
def test_a_damaged_pack_is_made_again(damage: str, images: Path, tmp_path: Path) -> None:
    config = config_for(images, tmp_path)
    pack = open_pack(config)
    index = pack.folder / "index.json"
    if damage == "truncated":
        (pack.folder / "images.bin").write_bytes(bytes(100))
    elif damage == "no index":
        index.unlink()
    elif damage == "broken index":
        index.write_text("{")
    else:
        index.write_text(json.dumps({**pack.index, "shape": [19, 16, 16, 3]}))
    again = open_pack(config)
    assert again.content == pack.content
    assert again.images.shape == (20, 16, 16, 3)


def test_bad_files_are_left_out_and_listed(images: Path, tmp_path: Path) -> None:
    folder = tmp_path / "mixed"
    folder.mkdir()
    for index, path in enumerate(images.rglob("*.png")):
        (folder / f"{index:02d}.png").write_bytes(path.read_bytes() if index != 7 else path.read_bytes()[:200])
    for _ in range(2):  # the second time as clearly as the first
        with pytest.raises(UsageError, match=r"1 of 20 images cannot be read, e\.g\. .*07\.png"):
            open_pack(config_for(folder, tmp_path))
    pack = open_pack(config_for(folder, tmp_path, max_rejected=0.05))
    assert len(pack.images) == 19
    rows = list(csv.reader((pack.folder / "rejected.csv").read_text().splitlines()))
    assert [Path(row[0]).name for row in rows[1:]] == ["07.png"]
    assert rows[1][1]


def test_nothing_readable_is_refused_however_much_is_allowed(tmp_path: Path) -> None:
    (tmp_path / "junk").mkdir()
    (tmp_path / "junk" / "a.png").write_bytes(b"junk")
    with pytest.raises(UsageError, match="1 of 1 images cannot be read"):
        open_pack(config_for(tmp_path / "junk", tmp_path, max_rejected=1.0))


def test_a_pack_that_was_cut_short_is_made_again(images: Path, tmp_path: Path) -> None:
    """What a killed process leaves behind: half a file under the unfinished name, and a lock file nobody holds."""
    config = config_for(images, tmp_path)
    whole = open_pack(config)
    (whole.folder / "images.bin").rename(tmp_path / "images.bin")
    whole.folder.rename(whole.folder.with_suffix(".unfinished"))
    assert open_pack(config).content == whole.content


def test_several_processes_at_once_make_one_pack(images: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from gan.config import *; from gan.data.pack import open_pack\n"
        "options = DataOptions(cache=Path(sys.argv[2]))\n"
        "pack = open_pack(Config(data=sys.argv[1], resolution=512, data_options=options))\n"
        "print('content', pack.content, pack.folder)"
    )
    command = [sys.executable, "-c", code, str(images), str(tmp_path)]
    jobs = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    lines = [job.communicate(timeout=120)[0].splitlines()[-1] for job in jobs]
    assert len(set(lines)) == 1
    assert all(job.returncode == 0 for job in jobs)
    assert len([path for path in (tmp_path / "packs").iterdir() if path.is_dir()]) == 1


def test_batches_are_the_images_of_the_stream_in_unit_range(images: Path, tmp_path: Path) -> None:
    pack = open_pack(config_for(images, tmp_path))
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
