"""The log of a run: log.jsonl, the progress bar or one line per entry, sample grids, the tracker."""

import contextlib
import json
import math
import os
import time
from datetime import timedelta

import numpy as np
from accelerate import Accelerator
from torch import Tensor
from tqdm import tqdm

from gan.config import Config, images_per_iteration
from gan.run_folder import RunFolder, attempt
from gan.telemetry.console import say
from gan.telemetry.grids import grid, to_uint8, write_picture
from gan.telemetry.means import RunningMeans
from gan.telemetry.tracking import Tracker

BAR = "{percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} iterations [{elapsed}<{remaining}{postfix}]"


class Recorder:
    """Collects statistics on every process; writes on the main one."""

    def __init__(
        self, config: Config, accelerator: Accelerator, folder: RunFolder, dataset_size: int, start: int, total: int
    ):
        self.config, self.accelerator, self.folder = config, accelerator, folder
        self.dataset_size, self.start, self.total = dataset_size, start, total
        self.writes = accelerator.is_main_process
        self.means = RunningMeans()
        self.tracker = Tracker(accelerator, config, folder.path, start * images_per_iteration(config))
        self.bar = tqdm(
            initial=start, total=total, bar_format=BAR, dynamic_ncols=True, disable=None if self.writes else True
        )
        self.began = self.last_time = time.perf_counter()
        self.last_iteration = start
        self.unwritten: list[str] = []
        """Entries that the log has no room for yet."""

    def add(self, statistics: dict[str, Tensor]) -> None:
        """Statistics of one more iteration; nothing is read from the device."""
        self.means.add(statistics)
        self.bar.update()

    def log(self, iteration: int, more: dict[str, float]) -> None:
        """Read the means and write an entry with them and `more`. `iteration` counts finished ones. A collective."""
        means = self.means.read(self.accelerator)
        if not self.writes:
            return
        now, images = time.perf_counter(), iteration * images_per_iteration(self.config)
        rate = (iteration - self.last_iteration) * images_per_iteration(self.config) / (now - self.last_time)
        self.last_time, self.last_iteration = now, iteration
        entry = {
            "iteration": iteration,
            "images": images,
            "epoch": images / self.dataset_size,
            **means,
            **more,
            "images_per_second": rate,
        }
        known = {name: value if math.isfinite(value) else None for name, value in entry.items()}
        self.unwritten.append(json.dumps(known) + "\n")
        attempt(self.write_log, f"the log {self.folder.log}")
        self.folder.write_status("running", iteration)
        self.show(entry, now)
        self.tracker.log(entry)

    def write_log(self) -> None:
        """Append what is not in the log yet: all of it, or nothing."""
        whole = self.folder.log.stat().st_size if self.folder.log.exists() else 0
        try:
            with open(self.folder.log, "a") as file:
                file.write("".join(self.unwritten))
        except OSError:
            with contextlib.suppress(OSError):
                os.truncate(self.folder.log, whole)
            raise
        self.unwritten.clear()

    def show(self, entry: dict[str, float], now: float) -> None:
        """Update the bar; without a terminal, print a line instead."""
        losses = f"loss D {entry['loss/d']:.3f}, loss G {entry['loss/g']:.3f}"
        summary = f"{entry['images_per_second'] / 1000:.2f} kimg/s, {losses}"
        if not self.bar.disable:
            self.bar.set_postfix_str(summary)
            return
        done = entry["iteration"]
        seconds = (now - self.began) / (done - self.start) * (self.total - done)
        say(f"iteration {done}/{self.total}, {summary}, {timedelta(seconds=round(seconds))} left")

    def picture(self, name: str, images: Tensor | np.ndarray, iteration: int) -> None:
        """Write samples/NAME.png; images are (N, C, H, W) in [−1, 1] or uint8 (N, H, W, C)."""
        if not self.writes:
            return
        drawn = grid(images if isinstance(images, np.ndarray) else to_uint8(images))
        attempt(lambda: write_picture(drawn, self.folder.samples / f"{name}.png"), f"the picture {name}.png")
        kind = name if name == "reals" else "samples" + name.removeprefix(f"iteration-{iteration:08d}")
        self.tracker.log_picture(kind, drawn, iteration * images_per_iteration(self.config))

    def close(self) -> None:
        self.bar.close()
        self.tracker.finish()
