"""The convolution blocks networks are made of, and how many channels they have."""

from collections import OrderedDict

from torch import nn

NEGATIVE_SLOPE = 0.2


def channels_at(resolution: int, width: int) -> int:
    """Channels of a block that works at `resolution`: `width` at 32×32, 8 · width at 4×4, width / 2 at 64×64.

    The number depends on nothing else, so blocks of the same resolution fit each other in networks of any image
    size, and every layer costs about the same arithmetic. It never falls below min(width, 16).
    """
    return max(32 * width // resolution, min(width, 16))


def up_block(channels_in: int, channels_out: int, stem: bool = False) -> nn.Sequential:
    """Transposed convolution, BatchNorm, ReLU: doubles the resolution, or opens a 1×1 stem to 4×4."""
    stride, padding = (1, 0) if stem else (2, 1)
    return nn.Sequential(
        OrderedDict(
            conv=nn.ConvTranspose2d(channels_in, channels_out, 4, stride, padding, bias=False),
            norm=nn.BatchNorm2d(channels_out),
            act=nn.ReLU(inplace=True),
        )
    )


def down_block(channels_in: int, channels_out: int, norm: bool = True) -> nn.Sequential:
    """Convolution, BatchNorm (where asked for), LeakyReLU: halves the resolution."""
    layers: OrderedDict[str, nn.Module] = OrderedDict(conv=nn.Conv2d(channels_in, channels_out, 4, 2, 1, bias=False))
    if norm:
        layers["norm"] = nn.BatchNorm2d(channels_out)
    layers["act"] = nn.LeakyReLU(NEGATIVE_SLOPE, inplace=True)
    return nn.Sequential(layers)
