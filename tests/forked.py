"""train.py in a process of its own whose imports have been done: fresh from `python`, they take most of a tiny run.

A server imports them once, and runs nothing; each run is a fork of it. tests/faults and all that goes through a
launcher start Python itself.
"""

import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

IMPORTED = ["gan.trainer", "torch._dynamo", "tests.forked"]
"""torch imports its _dynamo at the first step of an optimizer."""
server = multiprocessing.get_context("forkserver")
server.set_forkserver_preload(IMPORTED)


def run_forked(command: Sequence[str], timeout: float) -> subprocess.CompletedProcess[str]:
    """The Python script `command[0]` with the words that follow, in the present folder and environment. Raises
    TimeoutExpired after so many seconds."""
    with tempfile.TemporaryDirectory() as folder:
        streams = [Path(folder) / name for name in ("out", "err")]
        process = server.Process(target=become, args=(command, streams, os.getcwd(), dict(os.environ)))
        process.start()
        process.join(timeout)
        if process.is_alive():
            process.kill()
            raise subprocess.TimeoutExpired(command, timeout)
        assert process.exitcode is not None
        out, err = (stream.read_text() for stream in streams)
    return subprocess.CompletedProcess(command, process.exitcode, out, err)


def become(command: Sequence[str], streams: Sequence[Path], folder: str, environment: dict[str, str]) -> None:
    """What the fork does: the script, with its output in two files."""
    for number, stream in enumerate(streams, start=1):
        os.dup2(os.open(stream, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.argv = [*command]
    runpy.run_path(command[0], run_name="__main__")
