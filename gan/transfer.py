"""Begin a run with the weights of another one, of other images, channels or resolution."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gan.checkpoint import Checkpoint
from gan.config import Config
from gan.errors import UsageError
from gan.networks.dcgan import Discriminator

SPECTRAL = "parametrizations.weight.original"  # what a weight under spectral normalisation is called
ENDS = ("to_image.", "from_image.")  # they belong to one resolution and one number of channels


@dataclass(frozen=True)
class Takeover:
    """What became of one player's tensors, by name."""

    taken: list[str]
    fresh: list[str]


@torch.no_grad()
def take_over(module: nn.Module, weights: dict[str, Tensor], same_ends: bool) -> Takeover:
    """Copy every tensor whose name and shape fit; blocks are named by the resolution they work at.

    `same_ends`: the source has the same resolution and channels, so G's last and D's first layer fit too. The scales
    and statistics of a normalisation go with the convolution before it.
    """
    plain = {name.replace(SPECTRAL, "weight"): value for name, value in weights.items()}
    spectral = {name for name in weights if name.endswith(SPECTRAL)}
    if not any(name.endswith(SPECTRAL) for name in module.state_dict()):
        plain |= {name.replace(SPECTRAL, "weight"): normalised(weights, name) for name in spectral}
    mine = {name.replace(SPECTRAL, "weight"): value for name, value in module.state_dict().items()}

    def fits(name: str) -> bool:
        convolution = name.partition(".norm.")[0] + ".conv.weight"
        same = name in plain and plain[name].shape == mine[name].shape
        return same and (same_ends or not name.startswith(ENDS)) and (".norm." not in name or fits(convolution))

    names = [name for name, value in mine.items() if value.dim() and ".parametrizations." not in name]
    for name in filter(fits, names):
        mine[name].copy_(plain[name])
        for letter in "uv":  # of the power iteration
            vector = f"{name.removesuffix('weight')}parametrizations.weight.0._{letter}"
            if vector in mine and vector in weights:
                mine[vector].copy_(weights[vector])
    return Takeover([name for name in names if fits(name)], [name for name in names if not fits(name)])


def normalised(weights: dict[str, Tensor], name: str) -> Tensor:
    """What spectral normalisation makes of the weight of this name, W / (u · W v), as it is after training."""
    u, v = (weights[f"{name.removesuffix('original')}0._{letter}"] for letter in "uv")
    return weights[name] / (u @ weights[name].flatten(1) @ v)


def initialise_from(found: Checkpoint, config: Config, G: nn.Module, D: nn.Module) -> str:
    """Load what `--transfer` asks for into both players; a table of what was taken, for the user. Raises UsageError."""
    source = found.state["trajectory"]
    same_ends = (source["resolution"], source["channels"]) == (config.resolution, config.channels)
    wishes = [("G", G, "generator_ema" if config.transfer.weights == "ema" else "generator"), ("D", D, "discriminator")]
    lines = [f"Weights from {found.path}:"]
    for letter, module, group in wishes:
        if config.transfer.players not in ("both", letter.lower()):
            continue
        result = take_over(module, found.tensors[group], same_ends)
        fixed = {name for name, parameter in module.named_parameters() if not parameter.requires_grad}
        if random := sorted(fixed & {*result.fresh}):
            raise UsageError(f"--transfer.freeze-d would fix {random[0]}, which starts anew here; freeze fewer blocks.")
        if not result.taken:
            shape = " ".join(f"--{name} {source[name]}" for name in ("model.width", "model.kernel"))
            raise UsageError(f"--init-from {config.init_from}: nothing of its {group} fits this network. It was "
                             f"trained with {shape}; give the same.")  # fmt: skip
        lines += [f"  {letter} {status} {', '.join(summary(names))}"
                  for status, names in (("taken", result.taken), ("fresh", result.fresh)) if names]  # fmt: skip
    return "\n".join(lines)


def summary(names: list[str]) -> list[str]:
    """Layers in place of tensors: blocks.8.conv.weight, blocks.8.norm.bias → blocks.8 (2)."""
    layers: dict[str, int] = {}
    for name in names:
        parts = name.split(".")
        layer = ".".join(parts[: 2 if parts[1].isdigit() else 1])
        layers[layer] = layers.get(layer, 0) + 1
    return [f"{layer} ({count})" for layer, count in layers.items()]


def freeze_first_blocks(D: Discriminator, count: int) -> None:
    """Fix the weights of D's first `count` blocks: Mo et al. 2020 (FreezeD), https://arxiv.org/abs/2002.10964."""
    blocks = [D.from_image, *D.blocks.values()]
    if count >= len(blocks):
        raise UsageError(f"--transfer.freeze-d {count}: D has {len(blocks)} blocks; leave at least one to learn.")
    for block, size in zip(blocks[:count], D.sizes, strict=False):
        block.requires_grad_(False)
        if str(size) in D.lifts:
            D.lifts[str(size)].requires_grad_(False)
