"""Run by test_ending.py through the launcher: train.py, which must leave no process group behind.

Arguments: whether the run is told to stop by a signal (told or untold), and flags.
"""

import os
import signal
import sys
import weakref
from collections.abc import Callable

from accelerate import Accelerator
from torch import distributed

import gan.processes
import gan.run
import gan.trainer
from gan.cli import train
from gan.config import Config
from gan.preemption import Preemption


def group_is_gone() -> Callable[[], bool]:
    """Asked later, whether nothing keeps the present process group alive, and with it threads that may abort."""
    assert distributed.group.WORLD is not None
    group = weakref.ref(distributed.group.WORLD)
    return lambda: group() is None


def start_processes(config: Config) -> Accelerator:
    accelerator = gan.processes.start_processes(config)
    asked.append(group_is_gone())
    return accelerator


class Told(Preemption):
    """A signal comes as soon as it is waited for."""

    def __enter__(self) -> Preemption:
        super().__enter__()
        os.kill(os.getpid(), signal.SIGTERM)
        return self


if __name__ == "__main__":
    told = sys.argv[1] == "told"
    if told:
        setattr(gan.trainer, "Preemption", Told)  # noqa: B010
    asked: list[Callable[[], bool]] = []
    setattr(gan.run, "start_processes", start_processes)  # noqa: B010  # mypy: an import is not assignable
    assert train(sys.argv[2:]) == (75 if told else 0)
    assert asked[0]()
    print("all gone")
