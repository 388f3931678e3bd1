"""The trackers a run can log to: everything that Accelerate knows, by its names.

Whatever goes wrong in here is an exception, and gan.telemetry.tracking keeps it away from training. The libraries are
imported where a run needs them: W&B's import takes a fifth of a run's start.
"""

import os
import secrets
import shlex
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from accelerate import Accelerator
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers
from PIL import Image

from gan.errors import UsageError
from gan.files import replace_file
from gan.telemetry.console import say

if TYPE_CHECKING:
    from gan.config import TrackConfig

Values = Mapping[str, float | str | None]


class Service:
    """Any tracker that Accelerate knows: numbers alone, with "images" as their step. Those without a class of their own
    below are untested."""

    title = ""
    """Its name in messages; by default the one it is chosen by."""
    keeps_generators = False
    where: str | None = None
    """One line for the user: where to look."""

    def __init__(self, accelerator: Accelerator, options: "TrackConfig", folder: Path, images: int):
        """`images`: how many the run has seen when it starts; more than 0 where it goes on."""
        self.accelerator, self.options, self.folder, self.images = accelerator, options, folder, images
        self.title = self.title or options.with_

    def open(self, settings: dict[str, Any], recipe: str) -> bool:
        """Whether there is anything to log to."""
        plain = {
            name: value if isinstance(value, str | int | float) else str(value) for name, value in settings.items()
        }
        self.accelerator.init_trackers(self.options.project, plain)
        self.where = f"{self.title}: project {self.options.project}"
        return True

    def log(self, values: Values) -> None:
        """Values under their names, at `images` on the x-axis; here numbers alone."""
        numbers = {name: value for name, value in values.items() if isinstance(value, int | float)}
        self.accelerator.get_tracker(self.options.with_).log(numbers, step=int(numbers["images"]))

    def log_picture(self, name: str, picture: Image.Image, images: int) -> None:
        """`picture` is of mode L, RGB or RGBA."""

    def log_video(self, name: str, path: Path, images: int) -> None:
        """`path` is a GIF."""

    def alert(self, title: str, text: str, level: str) -> None:
        """`level` is info, warn or error."""

    def keep_generator(self, folder: Path) -> None:
        """`folder` is one that `gan.export.write_export` has written."""

    def finish(self) -> None:
        """Send what is left and close."""
        self.accelerator.get_tracker(self.options.with_).finish()


class Nothing(Service):
    """No tracker: log.jsonl and the pictures are on the disk anyway."""

    def open(self, settings: dict[str, Any], recipe: str) -> bool:
        """There is nothing to open."""
        return False


class TensorBoard(Service):
    """Scalars, words and pictures, in RUN/tensorboard; the step is the number of images. Each start writes a file of
    its own, whose beginning tells TensorBoard to forget what comes after the checkpoint that the run goes on from. (A
    GIF would need moviepy, and alerts have no place.)"""

    title = "TensorBoard"

    def open(self, settings: dict[str, Any], recipe: str) -> bool:
        """Below the run folder; points after a resume replace those that a killed run left."""
        # Accelerate would write the settings as a run of its own beside this one, anew at each start
        self.accelerator.init_trackers("tensorboard", init_kwargs={"tensorboard": {"purge_step": self.images + 1}})
        table = "".join(f"|{name}|{value}|\n" for name, value in settings.items())
        self.writer.add_text("settings", f"|setting|value|\n|---|---|\n{table}", self.images)
        self.where = f"TensorBoard: tensorboard --logdir {shlex.quote(str(self.folder))}/tensorboard"
        return True

    @property
    def writer(self) -> Any:
        """TensorBoard's own SummaryWriter."""
        return self.accelerator.get_tracker("tensorboard", unwrap=True)

    def log(self, values: Values) -> None:
        """Values under their names, numbers and words."""
        known = {name: value for name, value in values.items() if value is not None}
        self.accelerator.get_tracker("tensorboard").log(known, step=int(known["images"]))

    def log_picture(self, name: str, picture: Image.Image, images: int) -> None:
        """A picture under its name, at once."""
        pixels = np.asarray(picture)
        self.writer.add_image(name, pixels, images, dataformats="HWC" if pixels.ndim == 3 else "HW")
        self.writer.flush()


class WandB(Service):
    """Weights & Biases: one W&B run per run folder, however often it is started. "images" is the x-axis of everything.

    What was logged between a checkpoint and a kill is logged again, at the same place of the axis and with the same
    values, when the run goes on from that checkpoint.
    """

    title = "W&B"
    keeps_generators = True
    mode = "unknown"
    """online, offline or disabled."""

    def open(self, settings: dict[str, Any], recipe: str) -> bool:
        """Offline, and say so, when the server does not answer or W&B's settings are amiss."""
        try:
            self.mode = wandb_mode(self.options.wandb)
            if self.mode != "disabled":
                self.open_run(settings, recipe)
        except Exception as error:
            if self.mode == "offline":
                raise
            say(f"W&B cannot be reached ({type(error).__name__}); going on offline.")
            self.mode = "offline"
            import wandb

            self.accelerator.trackers.clear()  # Accelerate would start the failed one again
            wandb.teardown()  # and W&B's service still holds its run
            self.open_run(settings, recipe)
        return self.mode != "disabled"

    def open_run(self, settings: dict[str, Any], recipe: str) -> None:
        """The run of this folder: the one that it had before, where it is resumed."""
        import wandb

        options = {
            "id": run_id(self.folder / "wandb" / "id.txt"),
            "name": self.folder.name,
            "group": self.options.group,
            "job_type": "train",
            "tags": [recipe[:64]],
            "dir": str(self.folder),
            "mode": self.mode,
            "resume": "allow" if self.mode == "online" else None,
            # git's remote may have a password in its address, and the variables of SLURM, all of which W&B would take,
            # have its keys; the commit, the job and the machine are among the settings
            "settings": wandb.Settings(
                silent=True, console="off", init_timeout=30, disable_git=True, x_disable_meta=True
            ),
        }
        self.accelerator.init_trackers(self.options.project, settings, {"wandb": options})
        self.run.define_metric("images")
        self.run.define_metric("*", step_metric="images")
        offline = f"W&B is offline; to upload this run: wandb sync {shlex.quote(str(self.folder))}/wandb/offline-run-*"
        self.where = offline if self.mode == "offline" else f"W&B: {self.run.url}"

    @property
    def run(self) -> Any:
        """W&B's own Run."""
        return self.accelerator.get_tracker("wandb", unwrap=True)

    def log(self, values: Values) -> None:
        """Values under their names; W&B counts the steps itself."""
        self.run.log({name: value for name, value in values.items() if value is not None})

    def log_picture(self, name: str, picture: Image.Image, images: int) -> None:
        """A picture under its name."""
        import wandb

        self.run.log({name: wandb.Image(picture), "images": images})

    def log_video(self, name: str, path: Path, images: int) -> None:
        """A GIF under its name."""
        import wandb

        self.run.log({name: wandb.Video(str(path), format="gif"), "images": images})

    def alert(self, title: str, text: str, level: str) -> None:
        """An alert of the level info, warn or error."""
        self.run.alert(title, text, level=level.upper())

    def keep_generator(self, folder: Path) -> None:
        """As an artifact. Its files stay where they are until W&B has uploaded them: else it would copy them to the
        home folder, and leave them there as long as the run is offline."""
        import wandb

        artifact = wandb.Artifact(f"generator-{self.run.id}", type="model")
        for path in sorted(folder.resolve().iterdir()):
            artifact.add_file(str(path), policy="immutable", skip_cache=True)
        self.run.log_artifact(artifact)
        if self.mode == "online":
            artifact.wait()
            shutil.rmtree(folder, ignore_errors=True)


TRACKERS: dict[str, type[Service]] = {
    "wandb": WandB,
    "tensorboard": TensorBoard,
    "none": Nothing,
    **dict.fromkeys(sorted(LOGGER_TYPE_TO_CLASS.keys() - {"wandb", "tensorboard"}), Service),
}


def check_installed(name: str) -> None:
    """Raises UsageError when the package of a tracker is not there."""
    if name != "none" and name not in map(str, get_available_trackers()):
        raise UsageError(f"--track.with {name}: it is not installed; pip install {name.replace('_', '-')}.")


def run_id(file: Path) -> str:
    """The one in `file`, made up where there is none."""
    file.parent.mkdir(exist_ok=True)
    if not file.exists() or not file.read_text().strip():
        replace_file(file, secrets.token_hex(4).encode())
    return file.read_text().strip()


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
