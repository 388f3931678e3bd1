"""train.py, or the launcher, in a process of its own whose imports have been done: started as `python train.py`, they
take most of a tiny run.

A server imports them once, and runs nothing; each run is a fork of it. What tests/faults and tests/slurm run, and all
that a launcher starts, begins with Python itself.
"""

import atexit
import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

server = multiprocessing.get_context("forkserver")
server.set_forkserver_preload(["gan.run", "torch._dynamo", "accelerate.commands.launch", "pytest"])
"""An optimizer's first step imports torch._dynamo; pytest is the program whose process starts the forks."""


def run_forked(
    command: Sequence[str], timeout: float, env: Mapping[str, str] | None = None, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """The Python script `command[0]` with the words that follow; the rest is as with subprocess.run. Raises
    TimeoutExpired after so many seconds."""
    environment = dict(os.environ if env is None else env)
    with tempfile.TemporaryDirectory() as folder:
        streams = [Path(folder) / name for name in ("out", "err")]
        process = server.Process(target=become, args=(command, streams, environment, cwd or Path.cwd(), cores()))
        process.start()
        process.join(timeout)
        if process.is_alive():
            process.kill()
            raise subprocess.TimeoutExpired(command, timeout)
        assert process.exitcode is not None
        out, err = (stream.read_text() for stream in streams)
    return subprocess.CompletedProcess(command, process.exitcode, out, err)


def cores() -> set[int]:
    """Those that this process may use; nothing where the system does not say."""
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()


def become(
    command: Sequence[str], streams: Sequence[Path], environment: dict[str, str], folder: Path, cores: set[int]
) -> None:
    """What the fork does: the script, with its output in two files, to the very end of a Python program."""
    if cores:
        os.sched_setaffinity(0, cores)
    for number, stream in enumerate(streams, start=1):
        os.dup2(os.open(stream, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.argv = [*command]
    try:
        runpy.run_path(command[0], run_name="__main__")
    finally:
        atexit._run_exitfuncs()
