"""The run folder: where everything a run leaves behind has its place.

Torch, whose import takes seconds, is imported where a run is described: who only reads a run does without.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import filelock

from gan import __version__
from gan.data.locks import NO_LOCKS, lock_at
from gan.errors import RunError, UsageError, reason
from gan.files import attempt, replace_file
from gan.telemetry.console import say

if TYPE_CHECKING:
    from gan.config import Config

SLURM = ("SLURM_JOB_ID", "SLURM_RESTART_COUNT", "SLURM_ARRAY_TASK_ID", "SLURM_JOB_PARTITION", "SLURM_JOB_NODELIST")
CONTENTS = (
    *("config.yaml", "environment.json", "log.jsonl", "status.json", "checkpoints", "samples", "wandb"),
    *("tensorboard", "evaluation.json", "plots", "progress.gif", "walk.gif", "report.html"),
)


class RunFolder:
    """Paths below `--out`, and the small files that say what the run is and how it stands."""

    def __init__(self, path: Path):
        self.path = path
        self.checkpoints, self.samples = path / "checkpoints", path / "samples"
        self.log, self.status = path / "log.jsonl", path / "status.json"
        self.locked: filelock.BaseFileLock | None = None

    def create(self) -> None:
        """Make the folders. Raises UsageError when nothing can be written there."""
        try:
            self.make()
            for folder in (self.path, self.checkpoints, self.samples):
                probe = folder / ".writable"
                probe.touch()
                probe.unlink(missing_ok=True)  # another command may be trying the same
        except OSError as error:
            raise self.unwritable(error) from None

    def check(self) -> int:
        """Free bytes where the run folder is, or would be; nothing is made. Raises UsageError when nothing can be
        written there, another run is in it, or that cannot be known."""
        try:
            free = probe(self.path)
        except OSError as error:
            raise self.unwritable(error) from None
        if (self.path / ".lock").exists():
            self.lock()
            self.unlock()
        return free

    def unwritable(self, error: OSError) -> UsageError:
        """The refusal for what the system said."""
        return UsageError(f"cannot write to the run folder {self.path}: {reason(error)}. Choose another with --out.")

    def make(self) -> None:
        """The folders. Raises OSError."""
        for folder in (self.path, self.checkpoints, self.samples):
            folder.mkdir(parents=True, exist_ok=True)

    def lock(self) -> None:
        """Keep other runs out, until `unlock`; on a disk that knows no locks, say that it cannot. Raises UsageError
        when one is in already."""
        lock = lock_at(self.path / ".lock")
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            fault = f"another process is training in {self.path}. Wait for it, or choose another --out."
            raise UsageError(fault) from None
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise UsageError(f"cannot lock the run folder {self.path}: {reason(error)}.") from None
            say(f"Warning: the disk of {self.path} knows no locks: see to it that no other run trains there.")
            return
        self.locked, self.locked_file = lock, os.stat(lock.lock_file).st_ino

    def unlock(self) -> None:
        """Let other runs in."""
        if self.locked is not None:
            self.locked.release()

    def restore(self) -> bool:
        """Make the folders and the lock again where somebody has removed them; whether that was so. Raises OSError, and
        UsageError when another run has come in meanwhile."""
        lock = self.path / ".lock"
        held = self.locked is None or (lock.exists() and os.stat(lock).st_ino == self.locked_file)
        whole = held and self.samples.exists() and (self.path / "config.yaml").exists()
        if not whole:
            self.make()
        if not held:
            self.unlock()
            self.lock()
        return not whole

    def remove_if_empty(self) -> None:
        """Leave no empty folders behind a command that was refused; nor the lock, where it is this run's."""
        own = {self.samples.name, self.checkpoints.name} | ({".lock"} if self.locked else set())
        with contextlib.suppress(OSError):
            if own.issuperset(os.listdir(self.path)):
                self.samples.rmdir()
                self.checkpoints.rmdir()
                (self.path / ".lock").unlink(missing_ok=True)
                self.path.rmdir()

    def set_aside(self, every: int) -> Path | None:
        """Move a former run's files to previous-1/, previous-2/, …, so that a new record can start and none is lost;
        where they are now. What did not get as far as its first checkpoint, after `every` iterations, is written over.
        """
        present = [self.path / name for name in CONTENTS if (self.path / name).exists()]
        if not self.holds_run(every):
            return None
        number = next(n for n in itertools.count(1) if not (self.path / f"previous-{n}").exists())
        aside = self.path / f"previous-{number}"
        aside.mkdir()
        for item in present:
            item.rename(aside / item.name)
        say(f"The run that was in {self.path} is now in {aside}.")
        return aside

    def holds_run(self, every: int) -> bool:
        """Whether a run is in here that got as far as its first checkpoint, after `every` iterations."""
        return any(self.checkpoints.glob("iteration-*")) or last_logged(self.log) >= every

    def describe(self, config: Config, facts: dict[str, Any]) -> None:
        """Write config.yaml and environment.json."""
        from gan.config import as_yaml

        def write() -> None:
            for name, content in (
                ("config.yaml", as_yaml(config)),
                ("environment.json", json.dumps({**environment(), **facts}, indent=1)),
            ):
                replace_file(self.path / name, content.encode())

        attempt(write, f"{self.path}/config.yaml")

    def write_status(self, state: str, iteration: int, **details: Any) -> None:
        """`state` is running, preempted, finished or failed."""

        def write() -> None:
            try:
                replace_file(self.status, json.dumps({"state": state, "iteration": iteration, **details}).encode())
            except OSError:  # a full disk: a word or two may still fit where the old ones are
                with open(self.status, "r+") as file:
                    file.write(json.dumps({"state": state, "iteration": iteration}))
                    file.truncate()

        attempt(write, str(self.status))

    def sweep(self) -> None:
        """Remove what writers that were killed have left half done; for whoever holds the lock."""
        for folder, name in ((self.path, "status.json"), (self.path, "log.jsonl"), (self.samples, "*.png")):
            for leftover in folder.glob(f".[0-9]*-{name}"):
                leftover.unlink(missing_ok=True)

    def rewind_log(self, iteration: int) -> None:
        """Drop log lines past `iteration`, which are about to be written again, and what is no line of a log. Raises
        RunError."""
        if not self.log.exists():
            return
        try:
            kept = "".join(f"{line}\n" for line, done in lines_of(self.log) if done <= iteration)
            replace_file(self.log, kept.encode())
        except OSError as error:
            raise RunError(f"cannot write {self.log}: {reason(error)}.") from None


def probe(folder: Path) -> int:
    """Free bytes on the disk of a folder that is there or would be made. Raises OSError when none can be written."""
    folder = folder.absolute()
    there = next(path for path in (folder, *folder.parents) if os.path.lexists(path))
    with tempfile.TemporaryFile(dir=there):
        return shutil.disk_usage(there).free


def held(run: Path) -> bool:
    """Whether a process holds the run's lock, or may do so. Where there is no lock, none is made."""
    lock = run / ".lock"
    if not lock.exists():
        return False
    try:
        with lock_at(lock).acquire(timeout=0):
            return False
    except (filelock.Timeout, OSError):
        return True


def lines_of(log: Path) -> Iterator[tuple[str, int]]:
    """The lines of a log, each with its iteration; those that are damaged are left out."""
    for line in log.read_text(errors="replace").splitlines():
        with contextlib.suppress(ValueError, KeyError, TypeError, OverflowError, RecursionError):
            yield line, int(json.loads(line)["iteration"])


def last_logged(log: Path) -> int:
    """The last iteration in a log; 0 where there is none."""
    return max((done for _, done in lines_of(log)), default=0) if log.is_file() else 0


def environment() -> dict[str, Any]:
    """Versions, hardware, and the job where SLURM runs it. No other environment variables: they may hold secrets."""
    import torch

    packages = ("torchvision", "accelerate", "wandb", "numpy", "pillow")
    return {
        "gan-trainer": __version__,
        "python": platform.python_version(),
        **{name: version(name) for name in packages},
        "torch": torch.__version__,
        "gpus": [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())],
        "machine": platform.platform(),
        "commit": git_commit(),
        **{name.lower(): os.environ[name] for name in SLURM if name in os.environ},
    }


def git_commit() -> str | None:
    """The commit of this code, where it is a git checkout."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
