"""A trained generator as a folder to hand on, laid out as the Hugging Face hub has it.

FOLDER/model.safetensors   the weights of G, by the names they have in a checkpoint
       config.json         how G is built and its training images were made square
       samples.png         the first images of gan sample, not picked
       README.md           the model card
       model.onnx          the same G for onnxruntime and others, where asked for: z → images
       model.pt2           the same G for torch.export.load, where asked for
"""

import shutil
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro

from gan import checkpoint
from gan.card import card
from gan.checkpoint import Checkpoint
from gan.config import WEIGHTS, Config, one_of, some_of
from gan.errors import RunError, UsageError, reason
from gan.formats import FORMATS, add_format
from gan.latents import numbered
from gan.telemetry.console import say
from gan.telemetry.grids import grid, write_picture
from gan.trained import (
    CONFIG_FILE,
    WEIGHTS_FILE,
    TrainedGenerator,
    draw,
    group_of,
    load_generator,
    locate,
    read_checkpoint,
    read_run,
    to_json,
)

SAMPLES = 64


def write_exported(
    run: tyro.conf.Positional[Path],
    folder: tyro.conf.Positional[Path],
    formats: Annotated[tuple[str, ...], some_of(FORMATS)] = (),
    weights: Annotated[str, one_of(WEIGHTS)] = "ema",
    push: str | None = None,
) -> None:
    """Write a generator into a folder of its own: weights, settings, samples and a model card.

    Args:
        run: Run folder (its newest checkpoint) or checkpoint (RUN/checkpoints/iteration-…).
        folder: Where to; it must not be there yet.
        formats: Besides safetensors, each checked to give the same images: onnx, torch-export.
        weights: The average of G's weights, or the raw ones.
        push: Upload the folder to this place (USER/NAME) on the Hugging Face hub too; a new one is private.
    """
    place, which = locate(run)
    config = read_run(place)
    found = read_checkpoint(place, which)
    if folder.exists():
        raise UsageError(f"{folder} is there already; choose another folder, or remove it.")
    if push:
        check_login()
    unfinished = folder.with_name(f".{folder.name}.unfinished")
    try:
        shutil.rmtree(unfinished, ignore_errors=True)
        write_export(place, config, found, unfinished, weights)
        for name in formats:
            add_format(name, TrainedGenerator(config, load_generator(config, found, weights)), unfinished)
        unfinished.rename(folder)
    except OSError as error:
        raise UsageError(f"cannot write {folder}: {reason(error)}; choose another place.") from None
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    say(f"{found.path} in {folder}")
    if push:
        say(f"It is at {upload(folder, push)}")


def write_export(run: Path, config: Config, found: Checkpoint, folder: Path, weights: str = "ema") -> None:
    """Make `folder` from a checkpoint of a run. Raises UsageError and OSError."""
    folder.mkdir(parents=True)
    (folder / WEIGHTS_FILE).write_bytes(checkpoint.to_bytes(found.tensors[group_of(weights)]))
    (folder / CONFIG_FILE).write_text(to_json(config), "utf-8")
    G = TrainedGenerator(config, load_generator(config, found, weights))
    images = np.concatenate(list(draw(G, numbered(0, range(SAMPLES), G.z_dim))))
    write_picture(grid(images), folder / "samples.png")
    (folder / "README.md").write_text(card(run, config, found, weights), "utf-8")


def check_login() -> None:
    """Raises UsageError."""
    import huggingface_hub  # here alone: few push

    if huggingface_hub.get_token() is None:
        raise UsageError("--push needs a login on the Hugging Face hub: hf auth login, or HF_TOKEN.")


def upload(folder: Path, name: str) -> str:
    """Put the folder's files into a model of the hub, made private if it is new; its address. Raises RunError."""
    import huggingface_hub

    api = huggingface_hub.HfApi()
    try:
        made = api.create_repo(name, private=True, exist_ok=True)
        api.upload_folder(repo_id=made.repo_id, folder_path=folder, commit_message="Upload a generator",
                          delete_patterns=[file for file, _ in FORMATS.values()])  # fmt: skip  # of another generator
        return str(made)
    except Exception as error:  # of whichever HTTP library this version of the hub's uses
        what = " ".join(str(error).split())
        raise RunError(f"{folder} is written, but not pushed: {what}. Later: hf upload {name} {folder}") from None
