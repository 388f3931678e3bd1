"""Ends a run in which one process waits for another that is dead, stopped or stuck, and names it.

The backends' own time-outs end a run too, but gloo does not say which process was missing, and NCCL aborts from a
thread of its own. Here every process counts its beats into the store they met in and looks at the others' counts.
"""

import os
import socket
import sys
import threading
import traceback
from collections.abc import Callable
from datetime import timedelta

from accelerate import Accelerator
from torch import distributed

set_timeout = getattr(distributed, "set_timeout", None) or distributed.distributed_c10d._set_pg_timeout  # its old name


PATIENCE = timedelta(hours=12)
"""How long a collective may take before training begins: one machine may pack its images while another waits."""


class Watchdog(threading.Thread):
    """Watches from `with` to its end, or to `stop`; a run of one process has nothing to watch.

    `limit_s`: seconds without a sign of life from another process, or (after the first `progress`) without progress
    of any, until this process ends itself with status 1; the launcher then ends the others. Time is counted in beats
    seen, not by the clock, so a job that was suspended as a whole goes on unharmed.
    """

    def __init__(self, accelerator: Accelerator, limit_s: float, farewell: str):
        super().__init__(daemon=True, name="watchdog")
        self.farewell = farewell
        self.rank, self.processes = accelerator.process_index, accelerator.num_processes
        self.limit_s, self.period_s = limit_s, min(5.0, limit_s / 5)
        self.report: Callable[[str], None] = lambda reason: None
        """Called with the reason before the process ends itself."""
        self.silent_s = [0.0] * self.processes
        self.idle_s, self.finished = 0.0, 0
        self.stopped, self.parent = threading.Event(), os.getppid()

    def __enter__(self) -> "Watchdog":
        if self.processes > 1:
            self.store = distributed.distributed_c10d._get_default_store()
            self.keys = [f"gan/beats/{rank}" for rank in range(self.processes)]
            self.store.set(f"gan/hosts/{self.rank}", socket.gethostname())
            self.store.set(self.keys[self.rank], "0 0")
            set_timeout(PATIENCE, None)
            self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def stop(self) -> None:
        """No process needs the others any more. A thread left inside the store would abort Python on its way out."""
        self.stopped.set()
        if self.is_alive():
            self.join(timeout=self.limit_s)

    def progress(self) -> None:
        """The main thread has got on with its work. Costs nothing.

        From the first time on, no collective may take longer than twice the limit: the last resort where the machine
        that holds the store is gone without a word.
        """
        if not self.finished and self.processes > 1:
            set_timeout(timedelta(seconds=2 * self.limit_s), None)
        self.finished += 1

    def run(self) -> None:
        """The thread: `watch`, until the store that it looks into is gone."""
        try:
            self.watch()
        except RuntimeError as error:  # of the store: it is gone, and the machine or the launcher that held it
            # where the launcher has gone, the run is about to stop in good order, after this iteration
            if not self.stopped.wait(2 * self.period_s if os.getppid() == self.parent else self.limit_s):
                self.end(f"process 0, which all others report to, cannot be reached ({type(error).__name__})")

    def watch(self) -> None:
        """Beat, see who else does, and end the process where one is silent, or none gets on, for too long."""
        beats, seen = 0, [b""] * self.processes
        while not self.stopped.wait(self.period_s):
            beats += 1
            self.store.set(self.keys[self.rank], f"{beats} {self.finished}")
            now = [self.read(key) for key in self.keys]
            for rank in range(self.processes):
                fresh = now[rank] != seen[rank] or rank == self.rank
                self.silent_s[rank] = 0 if fresh else self.silent_s[rank] + self.period_s
            progress = [beat.split()[1:] for beat in now] != [beat.split()[1:] for beat in seen]
            self.idle_s = 0 if progress or not self.finished else self.idle_s + self.period_s
            seen = now
            if (silent := self.silent(self.limit_s)) is not None:
                self.end(silent)
            if self.idle_s >= self.limit_s / 2:
                self.store.set(f"gan/places/{self.rank}", self.place())
            if self.idle_s >= self.limit_s:
                places = [self.read(f"gan/places/{rank}").decode() for rank in range(self.processes)]
                where = ", ".join(f"process {rank} {place}" for rank, place in enumerate(places))
                self.end(f"nothing has got on for {self.idle_s:.0f} s, though every process answers: {where}. "
                         "If that was only slow, raise --distributed.timeout")  # fmt: skip

    def read(self, key: str) -> bytes:
        """What a process has written, or nothing yet; never waits."""
        return self.store.get(key) if self.store.check([key]) else b""

    def silent(self, limit_s: float) -> str | None:
        """Which processes have given no sign of life for `limit_s` seconds, in words; None when all have."""
        names = [
            f"process {rank} on {self.read(f'gan/hosts/{rank}').decode() or 'an unknown machine'}"
            for rank, silent_s in enumerate(self.silent_s)
            if silent_s >= limit_s
        ]
        return f"{', '.join(names)} no longer answers (dead, stopped, or its machine is gone)" if names else None

    def lost(self) -> str | None:
        """Asked after a collective has failed: who is missing, once that can be told; None when nobody is."""
        if self.processes == 1:
            return None
        self.stopped.wait(3 * self.period_s)
        return self.silent(2 * self.period_s)

    def place(self) -> str:
        """Where the main thread is: the innermost line of this package, which calls what it waits for."""
        frame = sys._current_frames().get(threading.main_thread().ident or 0)
        package = os.path.dirname(__file__)
        lines = [line for line in traceback.extract_stack(frame) if line.filename.startswith(package)]
        if not lines:
            return "is outside the trainer"
        line = lines[-1]
        return f"is in {line.name} ({os.path.relpath(line.filename, package)}, line {line.lineno})"

    def end(self, reason: str) -> None:
        """Say why and leave at once: the main thread is inside a collective and cannot be asked to."""
        try:
            print(f"error: {reason}. {self.farewell}", file=sys.stderr, flush=True)
            report = threading.Thread(target=self.report, args=(reason,), daemon=True)  # its disk may be what hangs
            report.start()
            report.join(timeout=5)
        finally:
            os._exit(1)
