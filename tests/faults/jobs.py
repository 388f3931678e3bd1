"""Real runs that are started, interrupted and looked at."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from tests.conftest import ROOT, TINY

ALONE = [sys.executable]
DEAF = ["sh", "-c", 'trap "" INT HUP; exec "$0" "$@"', sys.executable]
"""As nohup has it for SIGHUP, and a script for the SIGINT of what it starts with &."""
LAUNCH = [sys.executable, "-m", "accelerate.commands.launch"]
PAIR = [*LAUNCH, "--config_file", str(ROOT / "accelerate_configs" / "cpu_2.yaml")]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2"]
STARTERS = {
    "python": ALONE,
    "deaf python": DEAF,
    "accelerate launch": LAUNCH,
    "two processes": PAIR,
    "torchrun": TORCHRUN,
}


class Job:
    """A run under way: `process` is what was started, the launcher if there is one. It heeds Ctrl-C and the end of its
    terminal, as what a user starts by hand does, however the tests were started."""

    def __init__(self, starter: str, run: Path, *words: object, **environment: str):
        def set_signals() -> None:
            for number in (signal.SIGINT, signal.SIGHUP):
                signal.signal(number, signal.SIG_DFL)

        command = [*STARTERS[starter], str(ROOT / "train.py"), *TINY, "--out", str(run), *map(str, words)]
        self.run, self.starter = run, starter
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                        env=os.environ | environment, start_new_session=True,
                                        preexec_fn=set_signals)  # fmt: skip

    def wait_for_iteration(self, iteration: int) -> "Job":
        """Until the run says that it has done so many."""
        self.until(lambda: status_of(self.run).get("iteration", -1) >= iteration)
        return self

    def until(self, condition: Callable[[], bool], seconds: float = 90) -> None:
        end = time.monotonic() + seconds
        while not condition():
            assert self.process.poll() is None, self.process.communicate()
            assert time.monotonic() < end, "waited in vain"
            time.sleep(0.01)

    def workers(self) -> list[psutil.Process]:
        """The processes that train, in the order of their ranks."""
        if self.starter.endswith("python"):
            return [psutil.Process(self.process.pid)]
        launcher, found = psutil.Process(self.process.pid), []
        for child in launcher.children():
            with contextlib.suppress(psutil.Error):  # one that has ended
                command = child.cmdline()
                if command != launcher.cmdline() and "train.py" in " ".join(
                    command
                ):  # else it is yet to become another
                    found.append(child)
        return sorted(found, key=lambda worker: worker.environ().get("RANK", "0"))

    def end(self, seconds: float = 60) -> tuple[int, str]:
        """Wait for the end: exit status, and all that was said."""
        out, err = self.process.communicate(timeout=seconds)
        return self.process.returncode, out + err


def status_of(run: Path) -> dict[str, Any]:
    try:
        return json.loads((run / "status.json").read_text())
    except OSError:
        return {}


def gone(processes: list[psutil.Process]) -> bool:
    """Whether none of them is left."""
    return not any(process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in processes)


def seconds_until(condition: Callable[[], bool], limit: float = 60) -> float:
    """How long it takes until `condition` holds."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < limit, "waited in vain"
        time.sleep(0.005)
    return time.monotonic() - began


def name_of(number: int) -> str:
    return signal.Signals(number).name
