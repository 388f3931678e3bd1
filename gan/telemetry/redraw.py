"""The drawing of a run while it trains, by another process."""

import contextlib
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

from gan.data.packing import available_cores
from gan.telemetry.console import say

SHARE = 0.005
"""Of the machine's processor time, that drawing may take."""
PATIENCE_S = 12
"""How long the end of a run waits for its last pictures. With the tracker's, less than the 30 s a launcher leaves."""
PLACE = str(Path(__file__).parents[2])
CODE = f"import sys; sys.path[0] = {PLACE!r}; from gan.cli import main; sys.exit(main(['report', sys.argv[1]]))"
"""This package, whatever `gan` there is in the folder that the run was started in."""


class Redraw:
    """Starts what `gan report RUN` does, at the lowest priority and so rarely that training does not feel
    it."""

    def __init__(self, run: Path):
        self.command = [sys.executable, "-c", CODE, str(run)]
        self.process: subprocess.Popen[bytes] | None = None
        self.began = self.rested_at = 0.0
        self.warned = False

    def start(self, gently: bool = True) -> None:
        """Draw, unless that is being done, or was a short while ago."""
        if self.busy() or time.monotonic() < self.rested_at:
            return
        self.began = time.monotonic()
        with contextlib.suppress(OSError):  # no memory or processes left: drawn next time
            self.process = subprocess.Popen(self.command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            if gently and hasattr(os, "setpriority"):
                os.setpriority(os.PRIO_PROCESS, self.process.pid, 19)

    def busy(self) -> bool:
        """Whether the process is still at it. When it is not, the next one has to wait in proportion."""
        if self.process is None:
            return False
        if (status := self.process.poll()) is None:
            return True
        self.process = None
        self.rested_at = time.monotonic() + (time.monotonic() - self.began) / SHARE / available_cores()
        if status and not self.warned:
            self.warned = True
            say(f"Warning: plots and report could not be drawn; gan report {shlex.quote(self.command[-1])} says why.")
        return False

    def stop(self) -> None:
        """End the drawing that is under way; the run's end draws anew."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def conclude(self) -> None:
        """Draw the end of the run; now there is nothing to hold up."""
        self.stop()
        self.rested_at = 0
        self.start(gently=False)
        self.rested_at = float("inf")

    def wait(self) -> None:
        """For the last pictures, but not for ever."""
        if self.process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(PATIENCE_S)
            self.busy()
            self.stop()
