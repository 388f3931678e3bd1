import errno
import json
import os
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import nn

from gan import checkpoint, listing
from gan.errors import RunError

TENSORS = {
    "a": {"x": torch.arange(12.0).reshape(3, 4), "n": torch.tensor(7)},
    "b": {"y": torch.ones(2, dtype=torch.float64)},
}


def write(folder: Path, iteration: int = 5, keep: int = 3, tensors: checkpoint.TensorGroups = TENSORS) -> Path:
    return checkpoint.save(folder, iteration, tensors, {"note": "ü"}, keep)


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    path = write(tmp_path)
    assert path == tmp_path / "iteration-00000005"
    found = checkpoint.load(path)
    assert found.state == {"note": "ü", "iteration": 5}
    for group, tensors in TENSORS.items():
        for name, tensor in tensors.items():
            assert found.tensors[group][name].equal(tensor)
            assert found.tensors[group][name].dtype == tensor.dtype


def test_damage_to_any_file_is_found(tmp_path: Path) -> None:
    path = write(tmp_path)
    rng = random.Random(0)
    for file in sorted(path.iterdir()):
        whole = file.read_bytes()
        for _ in range(20):
            position, bit = rng.randrange(len(whole)), 1 << rng.randrange(8)
            file.write_bytes(whole[:position] + bytes([whole[position] ^ bit]) + whole[position + 1 :])
            with pytest.raises(RunError):
                checkpoint.load(path)
        for size in (0, len(whole) // 2, len(whole) - 1):
            file.write_bytes(whole[:size])
            with pytest.raises(RunError):
                checkpoint.load(path)
        file.unlink()
        with pytest.raises(RunError):
            checkpoint.load(path)
        file.write_bytes(whole)
    assert checkpoint.load(path)


def test_damaged_ones_are_passed_over_named_and_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for iteration in (1, 2, 3):
        write(tmp_path, iteration)
    (tmp_path / "iteration-00000003" / "a.safetensors").write_bytes(b"damaged")
    (tmp_path / "iteration-00000002" / "manifest.json").unlink()
    found = checkpoint.load_newest(tmp_path)
    assert found is not None
    assert found.state["iteration"] == 1
    printed = capsys.readouterr().out
    assert "iteration-00000003/a.safetensors" in printed
    assert "iteration-00000002" in printed
    assert (tmp_path / "iteration-00000003" / "a.safetensors").read_bytes() == b"damaged"  # looking changes nothing
    checkpoint.set_damaged_aside(tmp_path, found.path)
    assert sorted(os.listdir(tmp_path)) == [
        "damaged-iteration-00000002",
        "damaged-iteration-00000003",
        "iteration-00000001",
    ]


def test_only_the_newest_are_kept(tmp_path: Path) -> None:
    for iteration in (1, 2, 3, 4, 10):
        write(tmp_path, iteration, keep=3)
    assert sorted(os.listdir(tmp_path)) == ["iteration-00000003", "iteration-00000004", "iteration-00000010"]
    assert checkpoint.load_newest(tmp_path / "nothing") is None


def test_fewer_are_kept_on_a_full_disk_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is too many goes first: the new one may need its room."""
    for iteration in (1, 2, 3):
        write(tmp_path, iteration)

    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint, "write_durably", full)
    with pytest.raises(OSError, match="No space"):
        write(tmp_path, 4, keep=2)
    assert [path.name for path in listing.listed(tmp_path)] == ["iteration-00000003", "iteration-00000002"]


@pytest.mark.parametrize("links", [True, False])
def test_one_is_taken_over_by_another_folder(links: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> None:
        raise PermissionError

    path = write(tmp_path / "former")
    (tmp_path / "own").mkdir()
    if not links:
        monkeypatch.setattr("os.link", refuse)
    (path / "notes").mkdir()  # somebody's own
    checkpoint.take_over(path, tmp_path / "own")
    assert checkpoint.load(tmp_path / "own" / path.name).state == checkpoint.load(path).state
    assert os.listdir(tmp_path / "own") == [path.name]


def test_a_disk_without_room_for_a_copy_keeps_the_original(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    path = write(tmp_path / "former")
    (tmp_path / "own").mkdir()
    for function in ("os.link", "shutil.copyfile"):
        monkeypatch.setattr(function, refuse)
    with pytest.raises(RunError, match=r"cannot copy .*: No space left on device\. Make room, then: --resume "):
        checkpoint.take_over(path, tmp_path / "own")
    assert not os.listdir(tmp_path / "own")
    assert checkpoint.load_newest(tmp_path / "former") is not None


def test_another_process_gets_what_there_is(tmp_path: Path) -> None:
    """Groups without tensors too, as an optimizer's is before its first update."""
    found = checkpoint.load(write(tmp_path, tensors={**TENSORS, "none yet": {}}))
    received = checkpoint.from_message(checkpoint.to_message(found))
    assert received is not None
    assert (received.path, received.state, received.tensors.keys()) == (found.path, found.state, found.tensors.keys())
    for group, tensors in TENSORS.items():
        assert all(received.tensors[group][name].equal(value) for name, value in tensors.items())
    assert checkpoint.from_message(checkpoint.to_message(None)) is None


def test_saving_again_replaces(tmp_path: Path) -> None:
    write(tmp_path, 5)
    write(tmp_path, 5, tensors={"a": {"x": torch.zeros(1)}})
    assert checkpoint.load(tmp_path / "iteration-00000005").tensors["a"]["x"].tolist() == [0]


def test_a_save_that_fails_anywhere_leaves_the_earlier_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each write and each flush in turn raises, as on a full disk."""
    write(tmp_path, 1)
    real: dict[str, Any] = {"write_durably": checkpoint.write_durably, "flush_folder": checkpoint.flush_folder}
    for function in real:
        for survive in range(4 if function == "write_durably" else 1):
            calls: list[int] = []

            def fail(
                *arguments: Any, function: str = function, survive: int = survive, calls: list[int] = calls
            ) -> None:
                calls.append(1)
                if len(calls) > survive:
                    raise OSError(28, "No space left on device")
                real[function](*arguments)

            with monkeypatch.context() as patch:
                patch.setattr(checkpoint, function, fail)
                with pytest.raises(OSError, match="No space"):
                    write(tmp_path, 2)
            assert os.listdir(tmp_path) == ["iteration-00000001"]
            assert checkpoint.load(tmp_path / "iteration-00000001")


def test_files_reach_the_disk_before_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """fsync of every file, of the folder, rename, fsync of the parent, and only then removal of the oldest."""
    for iteration in (1, 2):
        write(tmp_path, iteration, keep=2)
    events: list[str] = []
    fsync, rename = os.fsync, Path.rename

    def noting_fsync(descriptor: int) -> None:
        events.append("fsync " + Path(os.readlink(f"/proc/self/fd/{descriptor}")).name)
        fsync(descriptor)

    def noting_rename(self: Path, target: Path) -> Path:
        events.append(f"rename {self.name} {target.name}")
        return rename(self, target)

    monkeypatch.setattr(os, "fsync", noting_fsync)
    monkeypatch.setattr(Path, "rename", noting_rename)
    write(tmp_path, 3, keep=2)
    assert events == [
        "fsync a.safetensors",
        "fsync b.safetensors",
        "fsync state.json",
        "fsync manifest.json",
        "fsync .unfinished-iteration-00000003",
        "rename .unfinished-iteration-00000003 iteration-00000003",
        f"fsync {tmp_path.name}",
        "rename iteration-00000001 .unfinished-old-iteration-00000001",
    ]


@pytest.mark.parametrize("fused", [True, False])
def test_optimizer_state_goes_on_exactly(fused: bool) -> None:
    def build() -> tuple[nn.Module, torch.optim.Optimizer]:
        torch.manual_seed(0)
        module = nn.Sequential(nn.Conv2d(3, 5, 4), nn.BatchNorm2d(5)).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return module, torch.optim.Adam(module.parameters(), 1e-2, fused=fused)

    def step(module: nn.Module, optimizer: torch.optim.Optimizer, seed: int) -> None:
        torch.manual_seed(seed)
        module(torch.randn(2, 3, 8, 8)).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()

    module, optimizer = build()
    for seed in range(3):
        step(module, optimizer, seed)
    copy, other = build()
    copy.load_state_dict(module.state_dict())
    saved = checkpoint.to_bytes(checkpoint.optimizer_tensors(optimizer, module))
    checkpoint.load_optimizer(other, copy, safetensors.torch.load(saved))
    for seed in range(3, 6):
        step(module, optimizer, seed)
        step(copy, other, seed)
    for one, two in zip(module.parameters(), copy.parameters(), strict=True):
        assert one.equal(two)


def test_copies_under_other_names_are_no_checkpoints(tmp_path: Path) -> None:
    for number in (99_999_999, 100_000_000):
        write(tmp_path, number, keep=2)
    for name in ("iteration-best", "iteration-copy", "iteration-00000001.old"):
        shutil.copytree(tmp_path / "iteration-99999999", tmp_path / name)
    write(tmp_path, 100_000_001, keep=2)
    assert [path.name for path in listing.listed(tmp_path)] == ["iteration-100000001", "iteration-100000000"]
    assert (tmp_path / "iteration-best").is_dir()


def test_an_old_one_that_cannot_be_removed_is_no_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def busy(path: Path) -> None:
        raise OSError(16, "Device or resource busy")

    monkeypatch.setattr(checkpoint, "remove", busy)
    for number in (1, 2):
        write(tmp_path, number, keep=1)
    assert "iteration-00000001 could not be removed (Device or resource busy)" in capsys.readouterr().out
    assert checkpoint.load(tmp_path / "iteration-00000002").state["iteration"] == 2


@pytest.mark.parametrize("name", ["../outside.safetensors", "/dev/zero", "sub/a.safetensors"])
def test_a_manifest_names_files_of_its_own_folder_only(name: str, tmp_path: Path) -> None:
    path = write(tmp_path, 1)
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["files"][name] = next(iter(manifest["files"].values()))
    manifest["sha256"] = checkpoint.checksum_of_files(manifest["files"])
    (path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(checkpoint.DamageError, match="is missing"):
        checkpoint.load(path)


def test_one_that_the_disk_does_not_give_is_not_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An older one would be gone on from, and the newest set aside as damaged."""
    for number in (1, 2):
        path = write(tmp_path, number, keep=2)
    read = Path.read_bytes

    def refuse(file: Path) -> bytes:
        if file.parent == path:
            raise OSError(5, "Input/output error")
        return read(file)

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(RunError, match=r"cannot be read \(Input/output error\); nothing was changed"):
        checkpoint.load_newest(tmp_path)


def write_scored(folder: Path, iteration: int, value: object, better: str, metric: str = "swd") -> None:
    score = {"metric": metric, "value": value, "better": better}
    checkpoint.save(folder, iteration, TENSORS, {"score": score}, 2)


@pytest.mark.parametrize(
    ("better", "values", "kept"), [("lower", [5, 1, 1, 2, 3, 4], 3), ("higher", [1, 3, 2, 0, 0, 2], 2)]
)
def test_the_best_one_stays(better: str, values: list[int], kept: int, tmp_path: Path) -> None:
    for number, value in enumerate(values, 1):
        write_scored(tmp_path, number, value, better)
    assert [listing.iteration_of(path) for path in listing.listed(tmp_path)] == [6, 5, kept]
    path, score = listing.best(tmp_path)
    assert (path, score["value"]) == (tmp_path / f"iteration-{kept:08d}", values[kept - 1])
