"""A trained generator as a folder to hand on: weights, settings, samples and a model card.

    FOLDER/model.safetensors   the averaged G of one checkpoint
           config.yaml         the settings of its run, which say how to build G
           samples.png         the first images of gan sample
           README.md           the model card

The card says what the run folder says, and nothing else.
"""

import shutil
from pathlib import Path
from typing import Any

import yaml

from gan import checkpoint
from gan.checkpoint import Checkpoint
from gan.config import Config, images_per_iteration
from gan.evaluate import read_entries
from gan.run_folder import facts_of
from gan.sample import draw_images, load_generator, read_run
from gan.telemetry.grids import grid, to_uint8, write_picture

SAMPLES = 64
CHANNELS = {1: "grey", 3: "RGB", 4: "RGB with alpha"}
LOADING = """\
import safetensors.torch
import torch

from gan.config import read_recipe
from gan.networks import NETWORKS

config = read_recipe("config.yaml")
dtype = getattr(torch, config.dtype)
G = NETWORKS[config.model.network](config)[0].to(dtype).eval()
G.load_state_dict(safetensors.torch.load_file("model.safetensors"))
with torch.no_grad():
    images = G(torch.randn(8, config.model.z_dim, dtype=dtype))[0]  # in [−1, 1]
"""
NEWEST = "\n\nProcesses, devices, versions and commit are those of the run's newest start."
LIMITS = """\
- Nobody has checked whether it repeats images of its training set.
- What its training images lack or have too much of, its own images do too.
- It draws at the resolution above and no other, and without being told what to draw.
- The images in samples.png are the first of a seed, not picked.
- The licence of the weights is not stated here; it may depend on that of the training images.
"""


def write_export(run: Path, path: Path, folder: Path) -> None:
    """Make `folder` from the checkpoint `path` of a run. Raises UsageError, RunError and OSError."""
    config, found = read_run(run), checkpoint.load(path)
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(checkpoint.to_bytes(found.tensors["generator_ema"]))
    shutil.copyfile(run / "config.yaml", folder / "config.yaml")
    images = draw_images(load_generator(config, found), config, 0, range(SAMPLES))
    write_picture(grid(to_uint8(images)), folder / "samples.png")
    name = run.resolve().name
    (folder / "README.md").write_text(card(name, config, found, facts_of(run), scores(run, found)), "utf-8")


def card(name: str, config: Config, found: Checkpoint, facts: dict[str, Any], measured: list[str]) -> str:
    """The model card of the averaged G of a checkpoint. `facts`: what the run's environment.json says."""
    header = {
        "license": "unknown",
        "library_name": "gan-trainer",
        "pipeline_tag": "unconditional-image-generation",
        "tags": ["gan", config.model.network, Path(config.recipe).stem],
    }
    sections = {
        "Trained on": bullets(training_images(config, found, facts)),
        "Training": bullets(training(config, found, facts)) + NEWEST,
        "Evaluation": "\n".join(measured) or "None of this checkpoint.",
        "Loading it": f"With gan-trainer installed, in this folder:\n\n```python\n{LOADING}```",
        "Limits": LIMITS.rstrip(),
    }
    side = config.resolution
    what = (f"A GAN's generator ({config.model.network}): {config.model.z_dim} standard normal numbers in, an image of "
            f"{side}×{side} pixels out ({CHANNELS[config.channels]}), in [−1, 1]. The weights are "
            f"{average(config)}.")  # fmt: skip
    text = "\n\n".join(f"## {title}\n\n{content}" for title, content in sections.items())
    return f"---\n{yaml.safe_dump(header, sort_keys=False)}---\n\n# {name}\n\n{what}\n\n![](samples.png)\n\n{text}\n"


def average(config: Config) -> str:
    decay = config.ema.decay
    return f"an exponential moving average over training (decay {decay})" if decay else "those of the last iteration"


def training_images(config: Config, found: Checkpoint, facts: dict[str, Any]) -> dict[str, Any]:
    return {
        "data": Path(config.data).name,
        "images": facts.get("images"),
        "resolution": f"{config.resolution}×{config.resolution}",
        "channels": f"{config.channels} ({CHANNELS[config.channels]})",
        "SHA-256 of the pixels": found.state["trajectory"].get("images"),
    }


def training(config: Config, found: Checkpoint, facts: dict[str, Any]) -> dict[str, Any]:
    """How the weights came about."""
    iteration, objective = found.state["iteration"], config.objective
    shown, images = iteration * images_per_iteration(config), facts.get("images")
    penalty = "none" if objective.penalty == "none" else f"{objective.penalty}, weight {objective.penalty_weight:g}"
    packages = ("gan-trainer", "python", "torch", "torchvision", "accelerate", "numpy")
    epochs = f", {shown / images:.4g} epochs" if images else ""
    devices = ", ".join(facts.get("gpus") or []) or facts.get("device")
    return {
        "recipe": Path(config.recipe).stem,
        "length": f"{iteration} iterations, {shown / 1000:g} kimg{epochs}",
        "batch size": f"{config.batch_size}, over all processes",
        "loss": objective.loss,
        "penalty": penalty,
        "updates of D for one of G": objective.n_critic,
        **{f"optimizer of {letter}": f"{options.method}, learning rate {options.lr:g}"
           for letter, options in (("G", config.optim_g), ("D", config.optim_d))},
        "seed": config.seed,
        "processes": facts.get("processes"),
        "devices": devices,
        "mixed precision": facts.get("precision"),
        "versions": ", ".join(f"{package} {facts[package]}" for package in packages if package in facts),
        "commit": facts.get("commit"),
    }  # fmt: skip


def scores(run: Path, found: Checkpoint) -> list[str]:
    """A line for each time that the averaged G of this checkpoint was measured, by `gan evaluate` or in training."""
    lines = []
    for entry in read_entries(run):
        protocol = entry["protocol"]
        if entry["checkpoint"] == found.path.name and protocol["weights"] == "ema":
            values = ", ".join(f"{name} {value:.4g}" for name, value in entry["values"].items())
            lines.append(f"- {entry['metric']} ({entry['better']} is better): {values}; {protocol['real']} real images "
                         f"({protocol['split']}), {protocol['fake']} generated")  # fmt: skip
    if score := found.state.get("score"):
        lines.append(f"- during training, {score['metric']} ({score['better']} is better): {score['value']:.4g}")
    return lines


def bullets(facts: dict[str, Any]) -> str:
    return "\n".join(f"- {name}: {value}" for name, value in facts.items() if value is not None)
