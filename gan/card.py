"""The model card of an exported generator: what the run folder says of it, and nothing else."""

from pathlib import Path
from typing import Any

import yaml

from gan.checkpoint import Checkpoint
from gan.config import Config, images_per_iteration
from gan.evaluate import read_entries
from gan.files import read_json

CHANNELS = {1: "grey", 3: "RGB", 4: "RGB with alpha"}
LOADING = """\
import torch
from gan import load

G = load(".")                              # this folder; TrainedGenerator.from_pretrained("user/name") from the hub
images = G(torch.randn(8, G.z_dim))        # (8, {channels}, {side}, {side}) in [−1, 1]
"""
NEWEST = "\n\nProcesses, devices, versions and commit are those of the run's newest start."
LIMITS = """\
- Nobody has checked whether it repeats images of its training set.
- What its training images lack or have too much of, its own images do too.
- It draws at the resolution above and no other, and without being told what to draw.
- The images in samples.png are the first of a seed, not picked.
- The licence of the weights is not stated here; it may depend on that of the training images.
"""


def card(run: Path, config: Config, found: Checkpoint, weights: str) -> str:
    """Of G of a checkpoint, with these weights."""
    facts, measured = read_json(run / "environment.json"), scores(run, found, weights)
    header = {
        "license": "unknown",
        "library_name": "gan-trainer",
        "pipeline_tag": "unconditional-image-generation",
        "tags": ["gan", config.model.network, Path(config.recipe).stem],
    }
    loading = LOADING.format(channels=config.channels, side=config.resolution)
    sections = {
        "Trained on": bullets(training_images(config, found, facts)),
        "Training": bullets(training(config, found, facts)) + NEWEST,
        "Evaluation": "\n".join(measured) or "None of this checkpoint.",
        "Loading it": f"With gan-trainer installed, in this folder:\n\n```python\n{loading}```",
        "Limits": LIMITS.rstrip(),
    }
    side = config.resolution
    what = (f"A GAN's generator ({config.model.network}): {config.model.z_dim} standard normal numbers in, an image of "
            f"{side}×{side} pixels out ({CHANNELS[config.channels]}), in [−1, 1]. The weights are "
            f"{which_weights(config, weights)}.")  # fmt: skip
    text = "\n\n".join(f"## {title}\n\n{content}" for title, content in sections.items())
    name = run.resolve().name
    return f"---\n{yaml.safe_dump(header, sort_keys=False)}---\n\n# {name}\n\n{what}\n\n![](samples.png)\n\n{text}\n"


def which_weights(config: Config, weights: str) -> str:
    """In words, what `weights`, ema or raw, are."""
    decay = config.ema.decay if weights == "ema" else 0
    return f"an exponential moving average over training (decay {decay})" if decay else "those of the last iteration"


def training_images(config: Config, found: Checkpoint, facts: dict[str, Any]) -> dict[str, Any]:
    """What the card says of the images: facts, never their place on this machine."""
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
    source, players = config.init_from, config.transfer.players
    return {
        "recipe": Path(config.recipe).stem,
        "weights to begin with": source and f"those of {source.name} (--transfer.players {players})",
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
        "versions": ", ".join(f"{package} {facts[package]}" for package in packages if package in facts) or None,
        "commit": facts.get("commit"),
    }  # fmt: skip


def scores(run: Path, found: Checkpoint, weights: str) -> list[str]:
    """A line for each time that this G was measured, by `gan evaluate` or in training."""
    lines = []
    for entry in read_entries(run):
        protocol = entry["protocol"]
        if entry["checkpoint"] == found.path.name and protocol["weights"] == weights:
            values = ", ".join(f"{name} {value:.4g}" for name, value in entry["values"].items())
            lines.append(f"- {entry['metric']} ({entry['better']} is better): {values}; {protocol['real']} real images "
                         f"of {Path(protocol['data']).name} ({protocol['split']}), {protocol['fake']} generated, "
                         f"seed {protocol['seed']}")  # fmt: skip
    if (score := found.state.get("score")) and weights == "ema":
        lines.append(f"- during training, {score['metric']} ({score['better']} is better): {score['value']:.4g}")
    return lines


def bullets(facts: dict[str, Any]) -> str:
    """A Markdown list of those facts that are known."""
    return "\n".join(f"- {name}: {value}" for name, value in facts.items() if value is not None)
