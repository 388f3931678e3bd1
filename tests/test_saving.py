"""Checkpoints written while training goes on."""

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from gan import checkpoint, listing
from gan.config import CheckpointConfig
from gan.errors import RunError
from gan.run_folder import RunFolder
from gan.saving import Saver


class Disk:
    """Takes nothing, not even a look at the tensors, before it is let go on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.ready, save = threading.Event(), checkpoint.save

        def wait_and_save(*words: Any) -> Path:
            assert self.ready.wait(30)
            return save(*words)

        monkeypatch.setattr(checkpoint, "save", wait_and_save)


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    folder = RunFolder(tmp_path / "run")
    folder.create()
    folder.lock()
    (folder.path / "config.yaml").touch()
    return folder


def saver_of(folder: RunFolder, **options: object) -> Saver:
    return Saver(folder, replace(CheckpointConfig(), **options))  # type: ignore[arg-type]


def names(folder: RunFolder) -> list[str]:
    return [path.name for path in listing.listed(folder.checkpoints)]


def test_what_is_written_is_what_was_saved(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Although training has changed it in place before it reached the disk; the next save waits for the first."""
    disk, saver, weight = Disk(monkeypatch), saver_of(folder), torch.arange(4.0).requires_grad_()
    saver.save(1, {"generator": {"weight": weight}}, {}, 3, last=False)
    with torch.no_grad():
        weight.add_(1)
    assert names(folder) == []
    threading.Timer(0.2, disk.ready.set).start()
    saver.save(2, {"generator": {"weight": weight}}, {}, 3, last=False)
    assert names(folder)[-1:] == ["iteration-00000001"]
    saver.settle()
    found = [checkpoint.load(folder.checkpoints / name).tensors["generator"]["weight"] for name in names(folder)]
    assert [value.tolist() for value in found] == [[1, 2, 3, 4], [0, 1, 2, 3]]
    saver.close()


@pytest.mark.parametrize("last", [False, True], ids=["without overlap", "the last one"])
def test_what_is_waited_for(last: bool, folder: RunFolder) -> None:
    saver = saver_of(folder, overlap=last)
    saver.save(1, {"generator": {"weight": torch.ones(1)}}, {}, 3, last)
    assert names(folder) == ["iteration-00000001"]


def test_a_failure_in_the_thread_is_told_and_counted(folder: RunFolder, monkeypatch: pytest.MonkeyPatch,
                                                     capsys: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    def full(path: Path, content: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "write_durably", full)
    saver, tensors = saver_of(folder, max_failures=2), {"generator": {"weight": torch.ones(1)}}
    saver.save(1, tensors, {}, 3, last=False)
    saver.settle()
    assert "(No space left on device); there is none yet. Training goes on (1 of at most 2 in a row)" in (
        capsys.readouterr().out
    )
    saver.save(2, tensors, {}, 3, last=False)
    with pytest.raises(RunError, match=r"at iteration 2 could not be saved .* Make room"):
        saver.save(3, tensors, {}, 3, last=False)


def test_the_last_one_is_tried_whatever_became_of_others(folder: RunFolder, monkeypatch: pytest.MonkeyPatch,
                                                         capsys: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    """Also after a fault of memory, of which nobody would hear in a thread."""
    write, tensors = checkpoint.write_durably, {"generator": {"weight": torch.ones(1)}}

    def lacking(path: Path, content: bytes) -> None:
        raise MemoryError

    monkeypatch.setattr(checkpoint, "write_durably", lacking)
    saver = saver_of(folder, max_failures=1)
    saver.save(1, tensors, {}, 3, last=False)
    saver.wait(30)
    monkeypatch.setattr(checkpoint, "write_durably", write)
    saver.save(2, tensors, {}, 3, last=True)
    assert names(folder) == ["iteration-00000002"]
    assert "Warning: the checkpoint at iteration 1 could not be saved (MemoryError)" in capsys.readouterr().out


def test_the_end_of_a_run_waits_for_the_checkpoint_under_way(folder: RunFolder,
                                                             monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    disk, saver = Disk(monkeypatch), saver_of(folder)
    saver.save(1, {"generator": {"weight": torch.ones(1)}}, {}, 3, last=False)
    saver.wait(0.01)
    assert names(folder) == []
    threading.Timer(0.2, disk.ready.set).start()
    saver.close()
    assert names(folder) == ["iteration-00000001"]
