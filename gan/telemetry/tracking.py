"""A tracker is a guest: whatever goes wrong with it, training goes on."""

import contextlib
import queue
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

from accelerate import Accelerator
from PIL import Image

from gan.checkpoint import load
from gan.config import Config, trajectory
from gan.export import write_export
from gan.files import read_json
from gan.telemetry.console import say
from gan.telemetry.trackers import TRACKERS, Values
from gan.trained import read_run

ROOM = 1000
"""Calls that may wait for the tracker; when it hangs, what comes after them is not sent."""
PATIENCE_S = 15
"""How long the end of a run waits for the tracker. Less than the 30 s that a launcher leaves a process."""
UPLOAD_BYTES_PER_S = 1e6
"""How slow an upload of the generator, at the end of a whole run, is waited for besides."""


class Tracker:
    """Logs on the main process to whatever `--track.with` names.

    After the start, a thread of its own talks to it, so training never waits for it.
    """

    def __init__(self, accelerator: Accelerator, config: Config, run_folder: Path, images: int):
        """`images`: how many the run has seen when it starts. Its environment.json is written already."""
        self.artifact, self.patience = config.track.artifact, float(PATIENCE_S)
        self.service = TRACKERS[config.track.with_](accelerator, config.track, run_folder, images)
        self.on = accelerator.is_main_process
        settings = {**trajectory(config), "data": config.data, **read_json(run_folder / "environment.json")}
        self.attempt(lambda: self.start(settings, Path(config.recipe).stem))
        self.calls: queue.Queue[Callable[[], None] | None] = queue.Queue(ROOM)
        self.thread = threading.Thread(target=self.work, name="tracker", daemon=True)
        if self.on:
            self.thread.start()

    def start(self, settings: dict[str, object], recipe: str) -> None:
        """Open the run at the service."""
        self.on = self.service.open(settings, recipe)

    def work(self) -> None:
        """The thread: one call after the other, until None."""
        while (call := self.calls.get()) is not None:
            self.attempt(call)

    def send(self, call: Callable[[], None] | None) -> None:
        """Have the thread do it, where there is one; None ends the thread."""
        if self.thread.is_alive():
            with contextlib.suppress(queue.Full):
                self.calls.put_nowait(call)

    def log(self, values: Values) -> None:
        """Values must hold "images", the x-axis of every curve."""
        self.send(lambda: self.service.log(values))

    def log_picture(self, name: str, picture: Image.Image, images: int) -> None:
        """Have a picture logged."""
        self.send(lambda: self.service.log_picture(name, picture, images))

    def log_video(self, name: str, path: Path, images: int) -> None:
        """`path` is a GIF, read when its turn has come."""
        self.send(lambda: self.try_to(lambda: self.service.log_video(name, path, images), f"the video {name}"))

    def alert(self, title: str, text: str, level: str) -> None:
        """`level` is info, warn or error."""
        self.send(lambda: self.try_to(lambda: self.service.alert(title, text, level), f"the alert {title!r}"))

    def keep_generator(self, run_folder: Path, checkpoint: Path) -> None:
        """The averaged G of a checkpoint with a model card, where the tracker keeps such things. Its files are written
        before this returns, and sent by the thread; `finish` waits longer for them the larger they are."""
        what, folder = "the generator", run_folder / "wandb" / f"generator-{checkpoint.name}"

        def prepare() -> None:
            shutil.rmtree(folder, ignore_errors=True)
            write_export(run_folder, read_run(run_folder), load(checkpoint), folder)
            self.patience += sum(path.stat().st_size for path in folder.iterdir()) / UPLOAD_BYTES_PER_S
            self.send(lambda: self.try_to(lambda: self.service.keep_generator(folder), what))

        if self.artifact and self.service.keeps_generators and self.thread.is_alive():
            self.try_to(prepare, what)

    def finish(self) -> None:
        """End the tracker's run; wait for it, but not for ever."""
        if not self.thread.is_alive():
            return
        self.send(self.service.finish)
        self.send(None)
        self.thread.join(self.patience)
        if self.thread.is_alive():
            say(f"{self.service.title} does not answer, so it was left behind; log.jsonl has it all.")

    def where(self) -> str | None:
        """One line for the user, at the start and at the end: the run's address, or how to look at it or upload it."""
        return self.service.where if self.on else None

    def attempt(self, call: Callable[[], None]) -> None:
        """Do it, or say why not and stop tracking."""
        if not self.on:
            return
        try:
            call()
        except Exception as error:  # the network, the service process, the disk: none of it may stop a training run
            say(f"{self.service.title} stopped ({reason(error)}); training goes on, log.jsonl has it all.")
            self.on = False

    def try_to(self, call: Callable[[], None], what: str) -> None:
        """Do it, or say that the tracker has to do without `what`."""
        try:
            call()
        except Exception as error:
            say(f"{self.service.title} lacks {what} ({reason(error)}); everything else goes on.")


def reason(error: Exception) -> str:
    """The error's kind and words, in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
