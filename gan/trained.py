"""A trained generator as a module: from a run folder, a checkpoint, an exported folder or the Hugging Face hub."""

import dataclasses
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from gan import checkpoint, listing
from gan.checkpoint import Checkpoint
from gan.config import WEIGHTS, Config, DataOptions, ModelConfig, check, read_recipe
from gan.errors import UsageError, reason
from gan.networks import NETWORKS
from gan.telemetry.grids import to_uint8

CONFIG_FILE, WEIGHTS_FILE = "config.json", "model.safetensors"
"""Of an exported folder, by the names that the Hugging Face hub gives them."""
BLOCK, BLOCK_PIXELS = 64, 1 << 20
"""Images drawn in one go at most, and pixels."""


class TrainedGenerator(nn.Module):
    """z (N, z_dim) ~ N(0, 1) → images (N, channels, resolution, resolution) in [−1, 1]: grey, RGB, or RGB with alpha.

    `config`: the settings of the run; of an exported folder, those alone that say how G is built and its images were
    made square. z may have another dtype than the weights.
    """

    def __init__(self, config: Config, network: nn.Module):
        super().__init__()
        self.config, self.network = config, network
        self.z_dim, self.channels, self.resolution = config.model.z_dim, config.channels, config.resolution
        self.eval()

    def forward(self, z: Tensor) -> Tensor:
        """z (N, z_dim) → images (N, C, H, W) in [−1, 1], of the finest scale."""
        return self.network(z.to(getattr(torch, self.config.dtype)))[0]

    @classmethod
    def from_pretrained(cls, name: str | Path, revision: str | None = None, token: str | None = None,
                        local_files_only: bool = False) -> "TrainedGenerator":  # fmt: skip
        """An exported folder, or "user/name" on the Hugging Face hub, which is downloaded once; on the CPU, in
        evaluation mode. Raises UsageError for a folder that is none, and what huggingface_hub raises."""
        folder = Path(name)
        if not folder.is_dir():
            if str(name).startswith((".", "/", "~")) or str(name).count("/") != 1:
                raise UsageError(f"there is no folder {name}; on the hub, a model is called user/name.")
            from huggingface_hub import snapshot_download  # here alone: a folder needs none of it

            folder = Path(snapshot_download(str(name), revision=revision, token=token,
                                            local_files_only=local_files_only,
                                            allow_patterns=[CONFIG_FILE, WEIGHTS_FILE]))  # fmt: skip
        try:
            config = from_json((folder / CONFIG_FILE).read_text("utf-8"))
            network = build(config)
            network.load_state_dict(safetensors.torch.load_file(folder / WEIGHTS_FILE))
        except (OSError, ValueError, TypeError, LookupError, AttributeError, RuntimeError,
                safetensors.SafetensorError) as error:  # fmt: skip
            what = f"{folder} is no whole exported folder, or one of another version ({reason(error)})."
            raise UsageError(what) from None
        return cls(config, network)


def load(path: str | Path, weights: str = "ema") -> TrainedGenerator:
    """The generator of a run folder (its newest intact checkpoint), a checkpoint or an exported folder, on the CPU, in
    evaluation mode: an image does not depend on the others of its batch.

    `weights`: "ema", the average, or "raw"; an exported folder has what it was given. Raises UsageError or RunError.
    """
    if (Path(path) / CONFIG_FILE).exists():
        if weights != "ema":
            raise UsageError(f"{path} is an exported folder: its weights were chosen by gan export --weights.")
        return TrainedGenerator.from_pretrained(path)
    run, which = locate(Path(path))
    config = read_run(run)
    return TrainedGenerator(config, load_generator(config, read_checkpoint(run, which), weights))


def locate(path: Path) -> tuple[Path, Path | None]:
    """A run folder, or a checkpoint in one → (run, checkpoint; None for the newest intact). Raises UsageError."""
    if (path / "manifest.json").exists() and (path / "../../config.yaml").exists():
        place = path.resolve() if path.is_symlink() else path
        return Path(os.path.normpath(place / "../..")), path
    if not (path / "config.yaml").exists():
        raise UsageError(f"{path} is neither a run folder nor a checkpoint in one.")
    if not listing.listed(path / "checkpoints"):
        raise UsageError(f"{path} has no checkpoint yet.")
    return Path(os.path.normpath(path)), None


def read_run(run: Path) -> Config:
    """The settings of a run folder. Raises UsageError."""
    if not (run / "config.yaml").exists():
        raise UsageError(f"{run} is not a run folder: it has no config.yaml.")
    return read_recipe(str(run / "config.yaml"))


def read_checkpoint(run: Path, path: Path | None) -> Checkpoint:
    """That one, or the run's newest intact one. Raises UsageError or RunError."""
    found = checkpoint.load(path) if path else checkpoint.load_newest(run / "checkpoints")
    if found is None:
        raise UsageError(f"{run} has no intact checkpoint.")
    return found


def build(config: Config) -> nn.Module:
    """The network of a run, in evaluation mode."""
    return NETWORKS[config.model.network](config)[0].to(getattr(torch, config.dtype)).eval()


def load_generator(config: Config, found: Checkpoint, weights: str = "ema") -> nn.Module:
    """The network of a checkpoint, on the CPU: the average, or the raw weights."""
    G = build(config)
    G.load_state_dict(found.tensors[group_of(weights)])
    return G


def group_of(weights: str) -> str:
    """The checkpoint's group of the weights, ema or raw. Raises UsageError."""
    if weights not in WEIGHTS:
        raise UsageError(f"weights {weights!r}: choose {' or '.join(WEIGHTS)}.")
    return "generator_ema" if weights == "ema" else "generator"


def with_images(config: Config, data: str | None, cache: Path | None) -> Config:
    """The settings of a run, with the images to compare it with: its own, unless `data` names others. Raises
    UsageError."""
    if not (data or config.data):
        raise UsageError("an exported folder does not say where its training images are: give --data SOURCE.")
    options = config.data_options if cache is None else dataclasses.replace(config.data_options, cache=cache)
    return dataclasses.replace(config, data=data or config.data, data_options=options)


def draw(G: TrainedGenerator, z: Tensor) -> Iterator[np.ndarray]:
    """Images of latents (n, z_dim), a block at a time, as they are saved: uint8 (up to a block, H, W, C).

    Always as many are computed at once, however few are asked for: with another number the kernels sum up in another
    order, and an image's last bits, and a level now and then, would depend on how many are drawn beside it.
    """
    like, size = next(G.parameters()), block_size(G.resolution)
    for part in z.split(size):
        with (
            torch.no_grad(),
            torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False),
        ):
            images = G(pad(part, (0, 0, 0, size - len(part))).to(like.dtype).to(like.device))  # some have no float64
        yield to_uint8(images[: len(part)])


def block_size(resolution: int) -> int:
    """Images in a block."""
    return max(1, min(BLOCK, BLOCK_PIXELS // resolution**2))


def to_json(config: Config) -> str:
    """The settings that say how G is built and how images were made square, for an exported folder."""
    options = config.data_options
    settings: dict[str, Any] = {
        "resolution": config.resolution,
        "channels": config.channels,
        "dtype": config.dtype,
        "model": dataclasses.asdict(config.model),
        "data_options": {"fit": options.fit, "background": options.background},
    }
    return json.dumps(settings, indent=1) + "\n"


def from_json(text: str) -> Config:
    """What `to_json` has written; `data` is empty. Raises ValueError, TypeError, KeyError or UsageError."""
    settings = json.loads(text)
    model, options = ModelConfig(**settings.pop("model")), DataOptions(**settings.pop("data_options"))
    config = Config(data="", iterations=1, model=model, data_options=options, **settings)
    check(config)
    return config
