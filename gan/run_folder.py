"""The run folder: where everything a run leaves behind has its place."""

import contextlib
import itertools
import json
import os
import platform
import subprocess
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import filelock
import torch

from gan import config as configuration
from gan.config import Config
from gan.errors import UsageError
from gan.telemetry.console import say

SLURM = ("SLURM_JOB_ID", "SLURM_RESTART_COUNT", "SLURM_ARRAY_TASK_ID", "SLURM_JOB_PARTITION", "SLURM_JOB_NODELIST")
CONTENTS = ("config.yaml", "environment.json", "log.jsonl", "status.json", "checkpoints", "samples", "wandb")


class RunFolder:
    """Paths below `--out`, and the small files that say what the run is and how it stands."""

    def __init__(self, path: Path):
        self.path = path
        self.checkpoints, self.samples = path / "checkpoints", path / "samples"
        self.log, self.status, self.config = path / "log.jsonl", path / "status.json", path / "config.yaml"

    def create(self) -> None:
        """Make the folders. Raises UsageError when nothing can be written there."""
        try:
            self.make()
            probe = self.path / ".writable"
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise UsageError(
                f"cannot write to the run folder {self.path}: {error.strerror}. Choose another with --out."
            ) from None

    def make(self) -> None:
        """The folders. Raises OSError."""
        for folder in (self.path, self.checkpoints, self.samples):
            folder.mkdir(parents=True, exist_ok=True)

    def lock(self) -> filelock.BaseFileLock:
        """Keep other runs out for as long as this object lives. Raises UsageError when one is in already."""
        lock = filelock.FileLock(self.path / ".lock")
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            raise UsageError(
                f"another process is training in {self.path}. Wait for it, or choose another --out."
            ) from None
        return lock

    def remove_if_empty(self) -> None:
        """Leave no empty folders behind a command that was refused."""
        with contextlib.suppress(OSError):
            for folder in (self.samples, self.checkpoints, self.path):
                folder.rmdir()

    def set_aside(self) -> None:
        """Move a former run's files to previous-1/, previous-2/, …, so that a new record can start and none is lost."""
        present = [self.path / name for name in CONTENTS if (self.path / name).exists()]
        if not any(self.checkpoints.glob("iteration-*")):
            return
        number = next(n for n in itertools.count(1) if not (self.path / f"previous-{n}").exists())
        aside = self.path / f"previous-{number}"
        aside.mkdir()
        for item in present:
            item.rename(aside / item.name)
        say(f"The run that was in {self.path} is now in {aside}.")

    def describe(self, config: Config, facts: dict[str, Any]) -> None:
        """Write config.yaml and environment.json."""
        configuration.save(config, self.config)
        (self.path / "environment.json").write_text(json.dumps({**environment(), **facts}, indent=1))

    def write_status(self, state: str, iteration: int, **details: Any) -> None:
        """`state` is running, preempted, finished or failed. Replaced in one step: a reader never sees half of it."""

        def write() -> None:
            fresh = self.path / ".status.json"
            try:
                fresh.write_text(json.dumps({"state": state, "iteration": iteration, **details}))
                fresh.replace(self.status)
            except OSError:  # a full disk: a word or two may still fit where the old ones are
                self.status.write_text(json.dumps({"state": state, "iteration": iteration}))

        attempt(write, str(self.status))

    def rewind_log(self, iteration: int) -> None:
        """Drop log lines past `iteration`: they are about to be written again."""
        if not self.log.exists():
            return
        kept = []
        for line in self.log.read_text().splitlines():
            try:
                if json.loads(line)["iteration"] <= iteration:
                    kept.append(line + "\n")
            except ValueError:  # a line cut short by a crash
                continue
        fresh = self.path / ".log.jsonl"
        fresh.write_text("".join(kept))
        fresh.replace(self.log)


def attempt(write: Callable[[], None], what: str) -> None:
    """Write something that training can do without. When the disk refuses, say so."""
    try:
        write()
    except OSError as error:
        say(f"Warning: {what} could not be written ({error.strerror or error}); training goes on.")


def environment() -> dict[str, Any]:
    """Versions, hardware and the place in a cluster. Of the environment's variables, which may hold secrets, SLURM's."""
    packages = ("torchvision", "accelerate", "wandb", "numpy", "pillow")
    return {
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
