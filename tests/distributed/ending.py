"""Run by test_ending.py through the launcher: train.py, which must leave no process group behind."""

import sys
import weakref
from collections.abc import Callable

from accelerate import Accelerator
from torch import distributed

import gan.processes
import gan.run
from gan.cli import train
from gan.config import Config


def group_is_gone() -> Callable[[], bool]:
    """Asked later, whether nothing keeps the present process group alive, and with it threads that may abort."""
    assert distributed.group.WORLD is not None
    group = weakref.ref(distributed.group.WORLD)
    return lambda: group() is None


def start_processes(config: Config) -> Accelerator:
    accelerator = gan.processes.start_processes(config)
    asked.append(group_is_gone())
    return accelerator


if __name__ == "__main__":
    asked: list[Callable[[], bool]] = []
    setattr(gan.run, "start_processes", start_processes)  # noqa: B010  # mypy: an import is not assignable
    assert train(sys.argv[1:]) == 0
    assert asked[0]()
    print("all gone")
