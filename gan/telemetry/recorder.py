"""The record of a run: log.jsonl, the progress bar or one line per entry, pictures, the tracker, alerts."""

import contextlib
import json
import math
import os
import time
from collections.abc import Iterable
from datetime import timedelta
from typing import Any

import numpy as np
from accelerate import Accelerator
from torch import Tensor
from tqdm import tqdm

from gan.config import Config, images_per_iteration
from gan.files import attempt, replace_file
from gan.run_folder import RunFolder, lines_of
from gan.telemetry.animation import gif
from gan.telemetry.console import say
from gan.telemetry.grids import grid, to_uint8, write_picture
from gan.telemetry.health import BEGINNING, HEALTHY, VERDICTS, WINDOW, Judge, reached, recent
from gan.telemetry.means import RunningMeans
from gan.telemetry.redraw import Redraw
from gan.telemetry.tracking import Tracker

FRAME_MS = 80
RESPITE = 5 * WINDOW
"""Iterations for which the same alarm is not raised again."""
BAR = "{percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} iterations [{elapsed}<{remaining}{postfix}]"


class Recorder:
    """Collects statistics on every process; writes on the main one."""

    def __init__(self, config: Config, accelerator: Accelerator, folder: RunFolder, dataset_size: int, start: int,
                 total: int, judge: Judge):  # fmt: skip
        self.config, self.accelerator, self.folder = config, accelerator, folder
        self.dataset_size, self.start, self.total, self.judge = dataset_size, start, total, judge
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
        past = lines_of(folder.log) if self.writes and folder.log.exists() else []
        logged = [json.loads(line) for line, done in past if done <= start]
        self.entries = list(recent(logged))
        """The newest, for the verdict; a run that goes on finds those of before in the log."""
        self.best = max((reached(entry) for entry in logged), default=0.0)
        """The samples' highest diversity, after the first window."""
        self.alarms: dict[str, int] = {}
        """Verdicts and the iterations at which they were last cause for alarm."""
        self.told = BEGINNING
        """The verdict that the user knows of; a run that goes on has told what it told before."""
        for entry in logged:
            self.is_news(str(entry.get("verdict")), entry["iteration"])
        self.redraw = Redraw(folder.path) if self.writes and config.track.report else None

    @property
    def verdict(self) -> str:
        """On the newest entry of the log."""
        return self.entries[-1].get("verdict", BEGINNING) if self.entries else BEGINNING

    def add(self, statistics: dict[str, Tensor]) -> None:
        """Statistics of one more iteration; nothing is read from the device."""
        self.means.add(statistics)
        self.bar.update()

    def log(self, iteration: int, more: dict[str, float], verdict: str | None = None) -> None:
        """Read the means and write an entry with them and `more`. `iteration` counts finished ones; `verdict` where
        there is no need to judge. A collective."""
        means = self.means.read(self.accelerator)
        done, self.last_iteration = iteration - self.last_iteration, iteration
        if not self.writes:
            return
        now, images = time.perf_counter(), iteration * images_per_iteration(self.config)
        seconds, self.last_time = now - self.last_time, now
        entry = {
            "iteration": iteration,
            "images": images,
            "epoch": images / self.dataset_size,
            **means,
            "health/gradient_ratio": means["grad_norm/g"] / max(means["grad_norm/d"], 1e-30),
            **more,
            "perf/images_per_second": done * images_per_iteration(self.config) / seconds,
            "perf/iteration_ms": 1000 * seconds / done,
        }
        known = {name: value if math.isfinite(value) else None for name, value in entry.items()}
        self.enter(known, verdict)
        self.unwritten.append(json.dumps(known) + "\n")
        attempt(self.write_log, f"the log {self.folder.log}")
        self.folder.write_status("running", iteration, total=self.total)
        self.show(entry, now)
        self.tracker.log(known)

    def enter(self, entry: dict[str, Any], verdict: str | None) -> None:
        """Add the verdict to an entry, and raise the alarm when it has become another; for the same fault not again for
        a while, in a run that is on the edge of it, but then if it lasts."""
        self.entries = list(recent([*self.entries, entry]))
        self.best, now = max(self.best, reached(entry)), entry["iteration"]
        entry["verdict"] = verdict = verdict or self.judge(self.entries, self.best)
        known = self.told
        if not self.is_news(verdict, now):
            return
        if verdict in VERDICTS:
            text = f"At iteration {now}: {VERDICTS[verdict].advice}"
            say(f"Warning: {verdict}. {text}")
            self.tracker.alert(verdict, text, "warn")
        else:
            say(f"Healthy again at iteration {now}; it was: {known}.")

    def is_news(self, verdict: str, now: int) -> bool:
        """Whether the user is to be told: of a fault that is not the one known of and has not been told for a while,
        and of its end. Takes it for told."""
        if verdict == self.told:
            return False
        if verdict in VERDICTS:
            news = now - self.alarms.get(verdict, -RESPITE) >= RESPITE
        else:
            news = verdict == HEALTHY and self.told in VERDICTS
        if news:
            self.alarms[verdict], self.told = now, verdict
        return news

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
        rate = entry["perf/images_per_second"]
        summary = f"{rate:,.{0 if rate >= 10 else 2}f} images/s, {losses}"
        if self.verdict in VERDICTS:
            summary += f", {self.verdict}"
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

    def video(self, name: str, frames: Iterable[Tensor], iteration: int) -> None:
        """Write NAME.gif, endless; a frame is a grid of images (N, C, H, W) in [−1, 1]."""
        if not self.writes:
            return
        path = self.folder.path / f"{name}.gif"
        content = gif((grid(to_uint8(images)) for images in frames), FRAME_MS)
        attempt(lambda: replace_file(path, content), f"{path}")
        self.tracker.log_video(name, path, iteration * images_per_iteration(self.config))

    def draw(self) -> None:
        """Bring plots, progress.gif and report.html up to date, by and by."""
        if self.redraw:
            self.redraw.start()

    def close(self, state: str, iteration: int, text: str) -> None:
        """End the record of a run that is preempted, finished or failed. One that is to go on leaves without last
        pictures; they take the others some seconds."""
        self.bar.close()
        if self.unwritten:  # the disk may have room by now
            attempt(self.write_log, f"the log {self.folder.log}")
        self.tracker.alert(f"{state} at iteration {iteration}", text, "error" if state == "failed" else "info")
        if self.redraw:
            self.redraw.stop() if state == "preempted" else self.redraw.conclude()
        self.tracker.finish()
        if self.redraw:
            self.redraw.wait()
