"""Where the time of an iteration goes, and what it needs of the machine."""

import contextlib
import time
from itertools import pairwise

import psutil
import torch


class Stopwatch:
    """Splits an iteration into named phases, where it has been started; else it costs nothing.

    On CUDA a phase ends with an event on the stream, so nothing waits for the device before `read`.
    """

    def __init__(self, device: torch.device):
        self.device = device
        self.marks: list[tuple[str, float | torch.cuda.Event]] = []

    def start(self) -> None:
        """An iteration begins."""
        self.marks = [("", self.mark())]

    def lap(self, phase: str) -> None:
        """What came since the last lap belongs to `phase`."""
        if self.marks:
            self.marks.append((phase, self.mark()))

    def mark(self) -> "float | torch.cuda.Event":
        """A moment: seconds on a CPU; on a GPU an event, read once it has passed, so that nobody waits."""
        if self.device.type != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def read(self) -> dict[str, float]:
        """perf/PHASE_ms: milliseconds of each phase since `start`, its laps added up. Waits for the device."""
        marks, self.marks = self.marks, []
        if marks and self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        times: dict[str, float] = {}
        for (_, before), (phase, after) in pairwise(marks):
            name = f"perf/{phase}_ms"
            times[name] = times.get(name, 0) + between(before, after)
        return times


def between(before: "float | torch.cuda.Event", after: "float | torch.cuda.Event") -> float:
    """Milliseconds."""
    if isinstance(before, float) or isinstance(after, float):
        return 1000 * (after - before)  # type: ignore[operator]
    return before.elapsed_time(after)


def resources(device: torch.device) -> dict[str, float]:
    """MiB of memory: on a GPU the most that tensors have had so far, else what the process has now. Per cent of the
    time that the GPU was busy of late, where the package nvidia-ml-py is there to tell."""
    if device.type != "cuda":
        return {"perf/memory_mib": psutil.Process().memory_info().rss / 2**20}
    values = {"perf/memory_mib": torch.cuda.max_memory_allocated(device) / 2**20}
    with contextlib.suppress(Exception):  # of no other kind are NVML's errors, where a card does not tell
        values["perf/gpu_percent"] = float(torch.cuda.utilization(device))
    return values
