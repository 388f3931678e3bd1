"""Which checkpoint a run goes on from, and whether it fits: the main process' business, which reads the disk."""

import os
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from gan import checkpoint, listing
from gan.checkpoint import Checkpoint
from gan.config import Config, trajectory
from gan.errors import UsageError
from gan.processes import precision
from gan.run_folder import RunFolder
from gan.telemetry.console import say


def find_checkpoint(config: Config, folder: RunFolder, identity: dict[str, Any], total: float) -> Checkpoint | None:
    """The checkpoint that `--resume` asks for. Raises RunError or UsageError."""
    if config.resume == "auto":
        found = checkpoint.load_newest(folder.checkpoints)
        if found is None and listing.listed(folder.checkpoints):
            raise UsageError(f"no checkpoint in {folder.checkpoints} is whole. To start anew: --resume never.")
    else:
        found = None if config.resume == "never" else open_checkpoint(Path(config.resume), "--resume")
    if found is not None:
        check_same_run(found, config, identity, total)
    return found


def find_source(config: Config, found: Checkpoint | None) -> Checkpoint | None:
    """What a run that begins anew takes its weights from: the run that `--init-from` names, if it does."""
    return None if found or config.init_from is None else open_checkpoint(config.init_from, "--init-from")


def clear_the_way(config: Config, folder: RunFolder, found: Checkpoint | None) -> None:
    """Set aside what is not gone on with. A checkpoint of this very folder stays, so that the run goes on from it also
    where it is stopped before it has saved one of its own."""
    if config.resume == "auto" and found is not None:
        checkpoint.set_damaged_aside(folder.checkpoints, found.path)
    else:
        own = found is not None and found.path.parent.resolve() == folder.checkpoints.resolve()
        aside = folder.set_aside(config.checkpoint.every)
        folder.create()
        if found is not None and own and aside is not None:
            checkpoint.take_over(aside / folder.checkpoints.name / found.path.name, folder.checkpoints)
    if found is not None:
        say(f"Going on from {found.path}.")


def open_checkpoint(path: Path, flag: str) -> Checkpoint:
    """The checkpoint in `path`, or the newest of the run there; `flag` asked for it. Raises RunError or UsageError."""
    if os.path.exists(path / "manifest.json"):
        return checkpoint.load(path)
    found = checkpoint.load_newest(path / "checkpoints") if os.path.isdir(path) else None
    if found is None:
        others = ", auto or never" if flag == "--resume" else ""
        raise UsageError(f"{flag} {path}: there is no checkpoint; give a run folder or a checkpoint's folder{others}.")
    return found


def identity_of(config: Config, accelerator: Accelerator, images: str) -> dict[str, Any]:
    """What decides the path of a run; a checkpoint carries it, and only fits a run with the same. `images`: the
    fingerprint of the pack."""
    local = not config.model.sync_batchnorm and "batch" in (config.model.norm_g, config.model.norm_d)
    return {
        **trajectory(config),
        "mixed precision": precision(accelerator),
        "images": images,
        "processes": accelerator.num_processes if local else "any",
    }


def check_same_run(found: Checkpoint, config: Config, now: dict[str, Any], total: float) -> None:
    """Raises UsageError naming what differs, or when there is nothing left to do from an explicit checkpoint."""
    then = found.state["trajectory"]
    changed = [name for name in now if now[name] != then.get(name)]
    words = {"images": "other images", "mixed precision": f"mixed precision {then.get('mixed precision')}",
             "processes": f"{then.get('processes')} process(es) that each have their own BatchNorm"}  # fmt: skip
    if changed and config.resume_changed and not any(fixed(name) for name in changed):
        say(f"Going on although this has changed: {', '.join(changed)}.")
    elif changed:
        what = ", ".join(words.get(name, f"--{name} {then.get(name)}") for name in changed)
        raise UsageError(
            f"{found.path} was made with {what}. Use the same settings again, or another run folder with --out; or "
            "go on regardless with --resume-changed True, where networks and optimizers stay what they are."
        )
    if config.resume != "auto" and found.state["iteration"] >= total:
        raise UsageError(f"{found.path} is already as long as this run, {total} iterations; ask for more.")


def fixed(setting: str) -> bool:
    """Whether a checkpoint fits no run in which this differs, whatever the user wishes."""
    return setting in ("resolution", "channels", "dtype") or setting.startswith("model.") or setting.endswith(".method")
