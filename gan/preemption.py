"""A run that is told to stop finishes its iteration, saves and leaves; all of its processes after the same iteration.

SIGTERM, SIGUSR1, SIGUSR2, SIGINT (Ctrl-C) and SIGHUP (its terminal is gone) ask for it, but not where they were
ignored from the start, as nohup does with SIGHUP. One process having got the signal is enough.
"""

import os
import signal
from collections import deque
from types import FrameType
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, distributed

from gan.errors import UserFault
from gan.orphans import LAUNCHERS

SIGNALS = [
    getattr(signal, name) for name in ("SIGTERM", "SIGUSR1", "SIGUSR2", "SIGINT", "SIGHUP") if hasattr(signal, name)
]
LAG = 4
"""Iterations after which a GPU's answer is read; so the host is never further ahead of the GPU."""


class Preempted(UserFault):
    """The run was told to stop and has saved: exit status 75, "try again" in sysexits.h."""

    exit_status = 75
    label = ""
    awaited = False


class Preemption:
    """Inside `with`, the signals only leave a note, which `due` passes on. A second Ctrl-C (under a launcher
    a third) ends the process at once."""

    def __init__(self, accelerator: Accelerator):
        self.processes, self.device = accelerator.num_processes, accelerator.device
        self.noted, self.interrupts = 0, 0
        self.enough = 3 if LAUNCHERS & os.environ.keys() else 2
        """So many Ctrl-C end the process at once: a launcher may pass on the one that the terminal has sent to all."""
        self.signal = 0
        """The signal for which the run stops, once that is settled."""
        self.waiting: deque[tuple[Tensor, torch.cuda.Event | None]] = deque()

    def __enter__(self) -> "Preemption":
        heeded = [number for number in SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
        self.former: dict[int, Any] = {number: signal.signal(number, self.note) for number in heeded}
        return self

    def __exit__(self, *error: object) -> None:
        """Where one of several processes fails, the launcher tells the others to end while they still write down what
        there is: they go on noting it."""
        if self.processes == 1 or error == (None, None, None):
            for number, handler in self.former.items():
                signal.signal(number, handler)

    def note(self, number: int, frame: FrameType | None) -> None:
        """The signal handler: note the signal; end at once where the user insists."""
        self.interrupts += number == signal.SIGINT
        if self.interrupts >= self.enough:
            os.write(2, b"Stopped at once; the newest checkpoint is as it was.\n")
            os._exit(128 + signal.SIGINT)
        self.noted = self.noted or number

    def due(self) -> bool:
        """Whether to stop now. Every process calls it once per iteration, and all get the same answer."""
        if self.processes == 1:
            self.signal = self.noted
            return bool(self.signal)
        flag = torch.full((), self.noted, dtype=torch.int32, device=self.device)
        distributed.all_reduce(flag, distributed.ReduceOp.MAX)
        self.waiting.append(on_its_way(flag))
        if len(self.waiting) > (LAG if self.device.type == "cuda" else 0):
            answer, arrived = self.waiting.popleft()
            if arrived is not None:
                arrived.synchronize()
            self.signal = int(answer)
        return bool(self.signal)


def on_its_way(flag: Tensor) -> tuple[Tensor, torch.cuda.Event | None]:
    """A copy of `flag` on the host, and what says that it has arrived."""
    if flag.device.type != "cuda":
        return flag, None
    answer = torch.empty((), dtype=flag.dtype, pin_memory=True).copy_(flag, non_blocking=True)
    arrived = torch.cuda.Event()
    arrived.record()
    return answer, arrived
