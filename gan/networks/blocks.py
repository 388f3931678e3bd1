"""The convolution blocks networks are made of, and how many channels they have."""

from collections import OrderedDict
from collections.abc import Callable

from torch import nn

NEGATIVE_SLOPE = 0.2

NORMS: dict[str, Callable[[int], nn.Module] | None] = {"batch": nn.BatchNorm2d, "none": None}
"""Normalisation layers by name, built from their number of channels."""


def channels_at(resolution: int, width: int) -> int:
    """Channels of a block that works at `resolution`: `width` at 32×32, 8 · width at 4×4, width / 2 at 64×64.

    The number depends on nothing else, so blocks of the same resolution fit each other in networks of any image
    size, and every layer costs about the same arithmetic. It never falls below min(width, 16).
    """
    return max(32 * width // resolution, min(width, 16))


def up_block(channels_in: int, channels_out: int, norm: str, stem: bool = False) -> nn.Sequential:
    """Transposed convolution, normalisation, ReLU: doubles the resolution, or opens a 1×1 stem to 4×4."""
    stride, padding = (1, 0) if stem else (2, 1)
    conv = nn.ConvTranspose2d(channels_in, channels_out, 4, stride, padding, bias=False)
    return block(conv, norm, nn.ReLU(inplace=True))


def down_block(channels_in: int, channels_out: int, norm: str) -> nn.Sequential:
    """Convolution, normalisation, LeakyReLU: halves the resolution."""
    conv = nn.Conv2d(channels_in, channels_out, 4, 2, 1, bias=False)
    return block(conv, norm, nn.LeakyReLU(NEGATIVE_SLOPE, inplace=True))


def block(conv: nn.Conv2d | nn.ConvTranspose2d, norm: str, act: nn.Module) -> nn.Sequential:
    layers: OrderedDict[str, nn.Module] = OrderedDict(conv=conv)
    if (normalisation := NORMS[norm]) is not None:
        layers["norm"] = normalisation(conv.out_channels)
    layers["act"] = act
    return nn.Sequential(layers)
