"""Making a pack: what is left out, and what happens when it is killed, starved or hindered."""

import csv
import errno
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image

from benchmarks.packing import ALONE
from gan.config import DataOptions
from gan.data.pack import open_pack, write_pack
from gan.data.sources import Folder
from gan.errors import RunError, UsageError
from tests.data.corpus import png
from tests.data.packs import PACK, config_for


def test_bad_files_are_left_out_and_listed(images: Path, tmp_path: Path) -> None:
    folder = tmp_path / "mixed"
    folder.mkdir()
    for index, path in enumerate(images.rglob("*.png")):
        (folder / f"{index:02d}.png").write_bytes(path.read_bytes() if index != 7 else path.read_bytes()[:200])
    for _ in range(2):  # the second time as clearly as the first, without decoding again
        with pytest.raises(
            UsageError, match=r"1 of 20 images cannot be read: 1 × 'image file is truncated'; e\.g\. .*07"
        ):
            open_pack(config_for(folder, tmp_path))
    (made,) = (tmp_path / "packs").glob("*/images.bin")
    written = made.stat().st_mtime_ns
    pack = open_pack(config_for(folder, tmp_path, max_rejected=0.05))
    assert len(pack.images) == 19
    assert made.stat().st_mtime_ns == written
    rows = list(csv.reader((pack.folder / "rejected.csv").read_text().splitlines()))
    assert [Path(row[0]).name for row in rows[1:]] == ["07.png"]
    assert rows[1][1]
    (folder / "new.png").touch()
    with pytest.raises(UsageError, match=r"2 of 21 images cannot be read"):
        open_pack(config_for(folder, tmp_path, max_rejected=0.05))


def test_a_killed_packer_leaves_no_workers(tmp_path: Path) -> None:
    job = subprocess.Popen([sys.executable, "-c", PACK, "sprites", str(tmp_path), "256"], stdout=subprocess.DEVNULL,
                           stderr=subprocess.DEVNULL)  # fmt: skip
    parent = psutil.Process(job.pid)
    until(lambda: len(parent.children()) >= 2 and any((tmp_path / "packs").glob(".unfinished-pack-*")))
    workers = parent.children()
    job.kill()
    job.wait()
    until(lambda: not any(worker.is_running() and worker.status() != "zombie" for worker in workers))


def test_a_worker_that_dies_ends_the_packing_with_a_sentence(tmp_path: Path) -> None:
    job = subprocess.Popen([sys.executable, "-c", PACK, "sprites", str(tmp_path), "256"], stdout=subprocess.DEVNULL,
                           stderr=subprocess.PIPE, text=True)  # fmt: skip
    parent = psutil.Process(job.pid)
    until(lambda: len(parent.children()) >= 2)
    parent.children()[0].kill()
    assert "a process that decodes images was killed" in job.communicate(timeout=60)[1]


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end, "waited 30 s in vain"
        time.sleep(0.02)


def test_a_full_disk_is_a_sentence_and_leaves_no_pack(images: Path, tmp_path: Path) -> None:
    limited = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (9000, 9000))\n{PACK}"
    command = [sys.executable, "-c", limited, str(images), str(tmp_path), "64"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert "cannot keep the packed images in" in result.stderr
    assert "File too large" in result.stderr
    assert [path.suffix for path in (tmp_path / "packs").iterdir()] == [".lock"], "nothing half-written fills the disk"
    assert len(open_pack(replace(config_for(images, tmp_path), resolution=64)).images) == 20


@pytest.mark.parametrize("error", [OSError(errno.EIO, "Input/output error"), OSError(errno.EMFILE, "x"), MemoryError()])
def test_a_fault_of_the_machine_is_not_held_against_an_image(
    error: Exception, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would be left out for good, though another time it can be read."""
    config, decode = config_for(images, tmp_path, workers=1), Folder.open
    ill = sorted(images.rglob("*.png"), key=str)[7]

    def refuse(source: Folder, index: int) -> Image.Image:
        if source.label(index) == str(ill):
            raise error
        return decode(source, index)

    monkeypatch.setattr(Folder, "open", refuse)
    with pytest.raises(RunError, match=f"could not read {ill}: .*Give the same command again"):
        open_pack(config)
    monkeypatch.undo()
    assert len(open_pack(config).images) == 20


def test_what_another_packs_beside_it_is_left_alone(images: Path, tmp_path: Path) -> None:
    """Under a name that begins with this one's; what a killed one has left of this one goes."""
    under_way, left = (tmp_path / f".unfinished-pack-{name}-a1b2c3d4" for name in ("faces-64", "faces"))
    under_way.mkdir()
    left.mkdir()
    write_pack(str(images), tmp_path / "faces", resolution=16, data_options=DataOptions(cache=tmp_path))
    assert under_way.exists()
    assert not left.exists()


def test_too_many_bad_files_do_not_cost_the_former_pack(images: Path, tmp_path: Path) -> None:
    options = DataOptions(cache=tmp_path)
    write_pack(str(images), tmp_path / "mine", resolution=16, data_options=options)
    (tmp_path / "bad").mkdir()
    for number in range(4):
        (tmp_path / "bad" / f"{number}.png").write_bytes(png(8, 2, np.zeros((8, 8, 3))) if number else b"junk")
    table = tmp_path / "mine" / "refused.csv"
    with pytest.raises(UsageError, match=f"1 of 4 images .* listed in {table}.* {tmp_path}/mine stays as it was"):
        write_pack(str(tmp_path / "bad"), tmp_path / "mine", resolution=16, data_options=options)
    assert len(open_pack(config_for(tmp_path / "mine", tmp_path)).images) == 20
    assert str(tmp_path / "bad" / "0.png") in table.read_text()
    write_pack("sprites", tmp_path / "mine", resolution=16, data_options=options)
    assert not table.exists()
    with pytest.raises(UsageError, match="1 of 4 images"):  # where there was none, the refused one is there to look at
        write_pack(str(tmp_path / "bad"), tmp_path / "new", resolution=16, data_options=options)
    assert (tmp_path / "new" / "reals.png").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_memory_does_not_grow_with_the_images(tmp_path: Path) -> None:
    """16,000 images more are 197 MB of pixels; their names and checksums are all that is kept of them."""
    grown = {}
    for count in (4_000, 20_000):
        with zipfile.ZipFile(tmp_path / f"{count}.zip", "w") as archive:
            for number in range(count):
                image = np.full((8, 8, 3), (number % 256, number // 256, 7))
                archive.writestr(f"{number}.png", png(8, 2, image))
        command = [sys.executable, "-c", ALONE, str(tmp_path / f"{count}.zip"), str(tmp_path)]
        result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
        grown[count] = np.array(result.stdout.split()[-2:], int) / 1024
    main, worker = grown[20_000] - grown[4_000]
    assert main < 25, grown
    assert worker - main < 15, grown  # what the main process keeps is in each worker too
