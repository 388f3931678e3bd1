"""Weights & Biases through Accelerate. A tracker is a guest: whatever goes wrong with it, training goes on.

Its import takes a fifth of a run's start, so only who needs it imports it.
"""

import contextlib
import os
import queue
import secrets
import shlex
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from PIL import Image

from gan.config import Config, trajectory
from gan.telemetry.console import say

ROOM = 1000
"""Calls that may wait for the tracker; when it hangs, what comes after them is not sent."""
PATIENCE_S = 15
"""How long the end of a run waits for the tracker. Less than the 30 s that a launcher leaves a process."""


class Tracker:
    """Logs to W&B on the main process, one W&B run per run folder. `mode` is online, offline or disabled.

    After the start, a thread of its own talks to W&B, so training never waits for it.
    """

    def __init__(self, accelerator: Accelerator, config: Config, run_folder: Path):
        self.accelerator, self.folder = accelerator, run_folder
        self.mode = "unknown" if accelerator.is_main_process else "disabled"
        self.attempt(lambda: self.start(config))
        self.calls: queue.Queue[Callable[[], None] | None] = queue.Queue(ROOM)
        self.thread = threading.Thread(target=self.work, name="tracker", daemon=True)
        if self.mode != "disabled":
            self.thread.start()

    def work(self) -> None:
        while (call := self.calls.get()) is not None:
            self.attempt(call)

    def send(self, call: Callable[[], None] | None) -> None:
        """Have the thread do it, where there is one; None ends the thread."""
        if self.thread.is_alive():
            with contextlib.suppress(queue.Full):
                self.calls.put_nowait(call)

    def start(self, config: Config) -> None:
        """Open the W&B run; offline, and say so, when the server does not answer or W&B's settings are amiss."""
        try:
            self.mode = wandb_mode(config.track.wandb)
            if self.mode != "disabled":
                self.open_run(config)
        except Exception as error:
            if self.mode == "offline":
                raise
            say(f"W&B cannot be reached ({type(error).__name__}); going on offline.")
            self.mode = "offline"
            import wandb

            self.accelerator.trackers.clear()  # Accelerate would start the failed one again
            wandb.teardown()  # and W&B's service still holds its run
            self.open_run(config)

    def open_run(self, config: Config) -> None:
        import wandb

        id_file = self.folder / "wandb" / "id.txt"
        id_file.parent.mkdir(exist_ok=True)
        if not id_file.exists() or not id_file.read_text().strip():
            fresh = id_file.with_suffix(".new")
            fresh.write_text(secrets.token_hex(4))
            fresh.replace(id_file)
        options = {
            "id": id_file.read_text().strip(),
            "name": self.folder.name,
            "dir": str(self.folder),
            "mode": self.mode,
            "resume": "allow" if self.mode == "online" else None,
            "tags": [Path(config.recipe).stem[:64]],
            "settings": wandb.Settings(silent=True, console="off", init_timeout=30),
        }
        settings = {**trajectory(config), "data": config.data}
        self.accelerator.init_trackers(config.track.project, settings, {"wandb": options})
        self.run.define_metric("images")
        self.run.define_metric("*", step_metric="images")

    @property
    def run(self) -> Any:
        return self.accelerator.get_tracker("wandb", unwrap=True)

    def log(self, values: dict[str, Any]) -> None:
        """Values must hold "images", the x-axis of every curve."""
        self.send(lambda: self.run.log(values))

    def log_picture(self, name: str, picture: Image.Image, images: int) -> None:
        def send() -> None:
            import wandb

            self.run.log({name: wandb.Image(picture), "images": images})

        self.send(send)

    def alert(self, title: str, text: str, level: str) -> None: ...

    def keep_generator(self, run: Path, place: Path) -> None: ...

    def finish(self) -> None:
        """End the tracker's run; wait no longer than PATIENCE_S for it."""
        if not self.thread.is_alive():
            return
        self.send(lambda: self.run.finish())
        self.send(None)
        self.thread.join(PATIENCE_S)
        if self.thread.is_alive():
            say("W&B does not answer, so it was left behind; log.jsonl has it all.")

    def where(self) -> str | None:
        """One line for the user: the run's address, or how to send it later."""
        if self.mode == "offline":
            return f"W&B is offline; to upload this run: wandb sync {shlex.quote(str(self.folder))}/wandb/offline-run-*"
        return f"W&B: {self.run.url}" if self.mode == "online" else None

    def attempt(self, call: Callable[[], None]) -> None:
        """Do it, or say why not and stop tracking."""
        if self.mode == "disabled":
            return
        try:
            call()
        except Exception as error:  # the network, the service process, the disk: none of it may stop a training run
            reason = " ".join(str(error).split())
            say(f"W&B stopped ({type(error).__name__}: {reason}); training goes on, log.jsonl has it all.")
            self.mode = "disabled"


def wandb_mode(wish: str) -> str:
    """auto → what $WANDB_MODE says, else online when logged in, else offline. Never prompts, never asks the network."""
    if wish == "auto":
        wish = os.environ.get("WANDB_MODE", "auto")
    if wish in ("offline", "disabled"):
        return wish
    import wandb

    if wandb.login(prompt=False, verify=False):
        return "online"
    if wish == "online":
        say("W&B: not logged in (wandb login does that once), so this run is offline.")
    return "offline"
