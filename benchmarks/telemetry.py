"""What watching a run costs it, in per cent of its time: python -m benchmarks.telemetry [--iterations 2000] [FLAGS]

One run with the default intervals. In the step: figures of D's separation, in every other iteration, against the
iterations between them (medians). At the intervals: reading, health, log, pictures, by the clock. Drawing: processor
time of the report's processes, of all that the run had (its last report, when training is over, left out).
"""

import os
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch

from gan import run, steps
from gan.config import parse
from gan.telemetry import health
from gan.telemetry.recorder import Recorder
from gan.telemetry.redraw import Redraw
from gan.trainer import Trainer

spent: dict[str, float] = defaultdict(float)
iterations: dict[bool, list[float]] = {True: [], False: []}


def timed(owner: type, name: str) -> None:
    """Add up the time that a method takes."""
    method: Callable[..., Any] = getattr(owner, name)

    def wrapper(*words: Any, **named: Any) -> Any:
        began = time.perf_counter()
        try:
            return method(*words, **named)
        finally:
            spent[name] += time.perf_counter() - began

    setattr(owner, name, wrapper)


def every_other_iteration() -> None:
    """Leave D's separation out, and note what either kind of iteration takes."""
    iterate, separation = Trainer.iterate, health.separation

    def wrapper(self: Trainer, iteration: int) -> Any:
        whole = iteration % 2 == 0
        setattr(steps, "separation", separation if whole else lambda *logits: {})  # noqa: B010
        began = time.perf_counter()
        statistics_of = iterate(self, iteration)
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        iterations[whole].append(time.perf_counter() - began)
        return statistics_of

    Trainer.iterate = wrapper  # type: ignore[method-assign]


def no_last_report(self: Redraw) -> None:
    """When training is over; the report under way comes to its end."""


def main() -> None:
    every_other_iteration()
    Redraw.conclude = no_last_report  # type: ignore[method-assign]
    for owner, name in ((Trainer, "figures"), (Recorder, "log"), (Trainer, "picture")):
        timed(owner, name)
    with tempfile.TemporaryDirectory() as scratch:
        flags = ["--iterations", "2000", "--track.wandb", "offline", *sys.argv[1:], "--out", f"{scratch}/run"]
        timed(Trainer, "run")
        run.train(parse(flags))
    own, children = os.times().user + os.times().system, os.times().children_user + os.times().children_system
    with_it, without = (statistics.median(iterations[whole]) for whole in (True, False))
    print(f"iteration {1000 * without:.2f} ms, with D's separation {100 * (with_it / without - 1):+.2f} %")
    total = spent.pop("run")
    for name, seconds in spent.items():
        print(f"{name}: {100 * seconds / total:.2f} % of {total:.0f} s")
    print(f"other processes: {100 * children / (own + children):.2f} % of {own + children:.0f} processor seconds")


if __name__ == "__main__":
    main()
