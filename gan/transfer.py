"""Begin a run with the weights of another one, of other images, channels or resolution."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gan.checkpoint import Checkpoint
from gan.config import Config
from gan.errors import UsageError
from gan.networks.dcgan import Discriminator

ENDS = ("to_image.", "from_image.")  # they belong to one resolution and one number of channels


@dataclass(frozen=True)
class Takeover:
    """What became of one player's tensors, by name."""

    taken: list[str]
    fresh: list[str]


@torch.no_grad()
def take_over(module: nn.Module, weights: dict[str, Tensor], same_ends: bool) -> Takeover:
    """Copy every tensor whose name and shape fit; blocks are named by the resolution they work at.

    `same_ends`: the source has the same resolution and channels, so G's last and D's first layer fit too.
    """
    taken, fresh = [], []
    for name, target in module.state_dict().items():
        if target.dim() == 0:
            continue  # BatchNorm's count of batches, which decides nothing
        source = weights.get(name)
        if source is not None and source.shape == target.shape and (same_ends or not name.startswith(ENDS)):
            target.copy_(source)
            taken.append(name)
        else:
            fresh.append(name)
    return Takeover(taken, fresh)


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
        if not result.taken:
            raise UsageError(f"--init-from {config.init_from}: nothing of its {group} fits this network.")
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
    for block in blocks[:count]:
        block.requires_grad_(False)
