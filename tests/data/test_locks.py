"""Several jobs and one pack."""

import errno
import subprocess
import sys
from pathlib import Path

import filelock
import pytest

from gan.data.pack import open_pack
from tests.data.packs import PACK, config_for


def test_several_processes_at_once_make_one_pack(images: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", PACK, str(images), str(tmp_path), "512"]
    jobs = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    said = [job.communicate(timeout=120)[0].splitlines() for job in jobs]
    assert sum(line.startswith("Packed 20 images") for lines in said for line in lines) == 1
    lines = [lines[-1] for lines in said]
    assert len(set(lines)) == 1
    assert all(job.returncode == 0 for job in jobs)
    assert len([path for path in (tmp_path / "packs").iterdir() if path.is_dir()]) == 1


@pytest.mark.parametrize("fault", [errno.ENOLCK, errno.ENOSYS], ids=["NFS", "Lustre"])
def test_a_disk_without_locks_keeps_each_job_to_itself(
    fault: int, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object) -> None:
        raise OSError(fault, "No locks available")

    config = config_for(images, tmp_path)
    whole = open_pack(config)
    of_another = whole.folder.with_name(f".unfinished-pack-{whole.folder.name}-a1b2c3d4")
    whole.folder.rename(of_another)
    monkeypatch.setattr("fcntl.flock", refuse)
    assert open_pack(config).content == whole.content
    assert not [path for path in whole.folder.parent.iterdir() if path.name.endswith(".lock") and path.stat().st_size]
    assert (of_another / "images.bin").exists()


def test_a_job_waits_while_another_packs(images: Path, tmp_path: Path) -> None:
    config = config_for(images, tmp_path)
    folder = open_pack(config).folder
    (folder / "index.json").unlink()
    with filelock.FileLock(folder.with_name(f".{folder.name}.lock")):
        job = subprocess.Popen([sys.executable, "-c", PACK, str(images), str(tmp_path), "16"], stdout=subprocess.PIPE)
        assert job.stdout is not None
        assert job.stdout.readline().startswith(b"Another process is packing")
        assert job.poll() is None
    assert b"content" in job.communicate(timeout=60)[0]
