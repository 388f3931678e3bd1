"""Checkpoints that are whole or absent: safetensors and JSON, checksummed, renamed into place, never pickled.

CHECKPOINTS/iteration-00012000/NAME.safetensors …   one file per group of tensors
                               state.json           everything that is not a tensor
                               manifest.json        size and SHA-256 of the other files, and of itself
"""

import hashlib
import json
import os
import shutil
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from gan.errors import RunError, reason
from gan.listing import best, iteration_of, listed
from gan.telemetry.console import say

TensorGroups = dict[str, dict[str, Tensor]]


class DamageError(RunError):
    """A checkpoint that is not whole, so that an older one has to do."""


@dataclass(frozen=True)
class Checkpoint:
    """`tensors`: group → name → CPU tensor; `state`: JSON values, among them "iteration"."""

    path: Path
    tensors: TensorGroups
    state: dict[str, Any]


def save(folder: Path, iteration: int, tensors: TensorGroups, state: dict[str, Any], keep: int | None) -> Path:
    """Write a checkpoint for `iteration`, then `prune`. Call it on one process only. Raises OSError.

    Each file reaches the disk before the manifest, the manifest before the rename, the rename before anything older
    is removed. A crash at any moment leaves the earlier checkpoints as they were.
    """
    target = place(folder, iteration)
    unfinished = folder / f".unfinished-{target.name}"
    for leftover in folder.glob(".unfinished-*"):
        shutil.rmtree(leftover, ignore_errors=True)
    prune(folder, keep)  # where `keep` has been lowered, as the disk is full
    unfinished.mkdir(parents=True)
    try:
        contents = {f"{name}.safetensors": to_bytes(group) for name, group in tensors.items()}
        contents["state.json"] = json.dumps({**state, "iteration": iteration}, indent=1).encode()
        contents["manifest.json"] = manifest_of(contents)
        for name, content in contents.items():
            write_durably(unfinished / name, content)
        flush_folder(unfinished)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    if target.exists():
        remove(target)
    unfinished.rename(target)
    flush_folder(folder)
    prune(folder, keep)
    return target


def prune(folder: Path, keep: int | None) -> None:
    """Remove all but the newest `keep` checkpoints (None: remove none) and the best."""
    spared, _ = best(folder)
    for old in listed(folder)[keep:] if keep else []:
        try:
            if old != spared:
                remove(old)
        except OSError as error:  # the new one is safe; a network disk may hold on to an old one for a while
            say(f"Warning: {old} could not be removed ({reason(error)}).")


def take_over(path: Path, folder: Path) -> None:
    """Have the checkpoint at `path` in `folder` too: whole, or not at all. Its files are shared where the disk can.
    Raises RunError."""
    unfinished = folder / f".unfinished-{path.name}"
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        unfinished.mkdir()
        for file in (file for file in path.iterdir() if not file.is_dir()):
            try:
                os.link(file, unfinished / file.name)
            except OSError:
                shutil.copyfile(file, unfinished / file.name)
        unfinished.rename(folder / path.name)
    except OSError as error:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise RunError(f"cannot copy {path} to {folder}: {reason(error)}. Make room, then: --resume {path}") from None


def place(folder: Path, iteration: int) -> Path:
    """Where the checkpoint of an iteration is, or will be."""
    return folder / f"iteration-{iteration:08d}"


def load(path: Path) -> Checkpoint:
    """Read a checkpoint, every byte checked. Raises DamageError, saying which file is missing or damaged, and RunError
    when the disk does not let it be read."""
    try:
        manifest = json.loads((path / "manifest.json").read_text())
        if manifest["sha256"] != checksum_of_files(manifest["files"]):
            raise DamageError(f"{path}/manifest.json is damaged")
        contents = {name: read_checked(path, name, facts) for name, facts in manifest["files"].items()}
        state = json.loads(contents.pop("state.json"))
        tensors = {Path(name).stem: safetensors.torch.load(content) for name, content in contents.items()}
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError, ValueError, KeyError, TypeError, AttributeError,
            RecursionError, SafetensorError) as error:  # fmt: skip
        raise DamageError(f"{path} is not a whole checkpoint ({error})") from None
    except OSError as error:
        raise RunError(f"{path} cannot be read ({reason(error)}); nothing was changed. Mend that first.") from None
    return Checkpoint(path, tensors, state)


def read_checked(path: Path, name: str, facts: dict[str, Any]) -> bytes:
    """A file of a checkpoint, of the size and checksum in its manifest. Raises DamageError and OSError."""
    file = path / name
    if Path(name).name != name or not stat.S_ISREG(os.stat(file).st_mode):  # is_file() would hide a fault of the disk
        raise DamageError(f"{file} is missing")
    content = file.read_bytes() if file.stat().st_size == facts["bytes"] else b""
    if hashlib.sha256(content).hexdigest() != facts["sha256"]:
        raise DamageError(f"{file} is damaged")
    return content


def to_message(found: Checkpoint | None) -> bytes:
    """A checkpoint, or none, for the way to another process."""
    if found is None:
        return b""
    note = json.dumps([str(found.path), found.state, list(found.tensors)]).encode()
    named = {f"{group}/{name}": value for group, tensors in found.tensors.items() for name, value in tensors.items()}
    return to_bytes({"note": torch.frombuffer(bytearray(note), dtype=torch.uint8), **named})


def from_message(content: bytes) -> Checkpoint | None:
    """What `to_message` was given."""
    if not content:
        return None
    named = safetensors.torch.load(content)
    path, state, groups = json.loads(bytes(named.pop("note").tolist()))
    tensors: TensorGroups = {group: {} for group in groups}  # an optimizer's is empty before its first update
    for full_name, value in named.items():
        group, _, name = full_name.partition("/")
        tensors[group][name] = value
    return Checkpoint(Path(path), tensors, state)


def load_newest(folder: Path) -> Checkpoint | None:
    """The newest intact checkpoint in `folder`, or None. Damaged ones are named, passed over and left as they are.
    Raises RunError when one cannot be read."""
    for path in listed(folder):
        try:
            return load(path)
        except DamageError as error:
            say(f"Skipping a checkpoint: {error}.")
    return None


def set_damaged_aside(folder: Path, newest_intact: Path) -> None:
    """Rename what is newer than the newest intact checkpoint to damaged-…, so that it is kept but never in the way."""
    for path in listed(folder):
        if iteration_of(path) > iteration_of(newest_intact):
            aside = path.with_name(f"damaged-{path.name}")
            shutil.rmtree(aside, ignore_errors=True)
            path.rename(aside)


def optimizer_tensors(optimizer: torch.optim.Optimizer, module: nn.Module) -> dict[str, Tensor]:
    """The optimizer's state as 'parameter.key' → tensor; hyperparameters come from the config, not from here."""
    named = module.named_parameters()
    return {f"{name}.{key}": value for name, parameter in named for key, value in optimizer.state[parameter].items()}


def load_optimizer(optimizer: torch.optim.Optimizer, module: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Put back what `optimizer_tensors` gave, each in its parameter's memory format, which fused kernels rely on."""
    parameters = dict(module.named_parameters())
    position = {name: index for index, name in enumerate(parameters)}
    state: dict[int, dict[str, Tensor]] = {}
    for full_name, value in tensors.items():
        name, _, key = full_name.rpartition(".")
        if value.shape == parameters[name].shape:
            value = torch.empty_like(parameters[name]).copy_(value)
        state.setdefault(position[name], {})[key] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def to_bytes(group: dict[str, Tensor]) -> bytes:
    """The tensors as safetensors."""
    return safetensors.torch.save({name: tensor.detach().cpu().contiguous() for name, tensor in group.items()})


def manifest_of(contents: dict[str, bytes]) -> bytes:
    """JSON: the size and SHA-256 of each file, and one checksum over these."""
    files = {
        name: {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        for name, content in contents.items()
    }
    return json.dumps({"files": files, "sha256": checksum_of_files(files)}, indent=1).encode()


def checksum_of_files(files: dict[str, dict[str, Any]]) -> str:
    """SHA-256 of a manifest's entries, in hexadecimal."""
    return hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()


def write_durably(path: Path, content: bytes) -> None:
    """The bytes are on the disk when this returns. Raises OSError."""
    with open(path, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def flush_folder(folder: Path) -> None:
    """Make the names in `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove(path: Path) -> None:
    """Rename first, so that a half-deleted checkpoint is never taken for a whole one."""
    doomed = path.with_name(f".unfinished-old-{path.name}")
    path.rename(doomed)
    shutil.rmtree(doomed)
