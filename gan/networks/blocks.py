"""The convolution blocks networks are made of, and how many channels they have."""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import torch
from einops import rearrange
from einops.layers.torch import Rearrange
from torch import Tensor, nn
from torch.nn.utils.parametrizations import _SpectralNorm
from torch.nn.utils.parametrize import register_parametrization

NEGATIVE_SLOPE = 0.2

NORMS: dict[str, Callable[[int, float], nn.Module] | None] = {
    "batch": lambda channels, momentum: nn.BatchNorm2d(channels, momentum=momentum),
    "instance": lambda channels, momentum: nn.InstanceNorm2d(channels, affine=True),
    "layer": lambda channels, momentum: nn.GroupNorm(1, channels),
    "none": None,
}
"""Normalisation by name, built from (channels, momentum): over the batch, over each map, over each sample, none."""


@dataclass(frozen=True)
class Layers:
    """How the layers of a network are made."""

    norm: str = "batch"
    momentum: float = 0.1
    """Weight of the newest batch in BatchNorm's running statistics (PyTorch's convention)."""
    kernel: int = 4
    spectral: bool = False
    """Spectral normalisation of every convolution: Miyato et al. 2018, https://arxiv.org/abs/1802.05957."""


def channels_at(resolution: int, width: int) -> int:
    """Channels of a block that works at `resolution`: `width` at 32×32, 8 · width at 4×4, width / 2 at 64×64.

    The number depends on nothing else, so blocks of the same resolution fit each other in networks of any image
    size, and every layer costs about the same arithmetic. It never falls below min(width, 16).
    """
    return max(32 * width // resolution, min(width, 16))


def stem(z_dim: int, channels: int, layers: Layers, dense: bool) -> nn.Sequential:
    """(N, z_dim, 1, 1) → (N, channels, 4, 4). Arithmetically both kinds are a matrix product; a dense stem normalises
    each of its 16 · channels outputs by itself, the other one each channel."""
    conv = PointTranspose(z_dim, channels, 4)
    if not dense:
        return block(conv, layers, nn.ReLU(inplace=True))
    parts = OrderedDict(block(conv, layers, nn.ReLU(inplace=True), features=16 * channels).named_children())
    flat, square = Rearrange("n c h w -> n (c h w) 1 1"), Rearrange("n (c h w) 1 1 -> n c h w", h=4, w=4)
    return nn.Sequential(OrderedDict(conv=parts.pop("conv"), flat=flat, **parts, square=square))


def enlarge(channels_in: int, channels_out: int, kernel: int) -> nn.ConvTranspose2d:
    """Transposed convolution that doubles the resolution."""
    padding = (kernel - 1) // 2
    return nn.ConvTranspose2d(channels_in, channels_out, kernel, 2, padding, output_padding=kernel % 2, bias=False)


def up_block(channels_in: int, channels_out: int, layers: Layers) -> nn.Sequential:
    """Transposed convolution, normalisation, ReLU: doubles the resolution."""
    return block(enlarge(channels_in, channels_out, layers.kernel), layers, nn.ReLU(inplace=True))


def down_block(channels_in: int, channels_out: int, layers: Layers, norm: bool = True) -> nn.Sequential:
    """Convolution, normalisation (where asked for), LeakyReLU: halves the resolution."""
    conv = nn.Conv2d(channels_in, channels_out, layers.kernel, 2, (layers.kernel - 1) // 2, bias=False)
    return block(spectral(conv, layers), layers, nn.LeakyReLU(NEGATIVE_SLOPE, inplace=True), channels_out * norm)


def block(conv: nn.Module, layers: Layers, act: nn.Module, features: int | None = None) -> nn.Sequential:
    """Convolution, normalisation of so many features (by default its channels; 0: none), activation."""
    features = int(conv.out_channels) if features is None else features  # type: ignore[arg-type]
    parts: OrderedDict[str, nn.Module] = OrderedDict(conv=conv)
    if features and (norm := NORMS[layers.norm]) is not None:
        parts["norm"] = norm(features, layers.momentum)
    parts["act"] = act
    return nn.Sequential(parts)


def spectral(conv: nn.Conv2d, layers: Layers) -> nn.Module:
    """The convolution, with spectral normalisation where asked for."""
    if layers.spectral:
        register_parametrization(conv, "weight", SpectralNorm(conv.weight))
    return conv


class SpectralNorm(_SpectralNorm):
    """Miyato et al. 2018, https://arxiv.org/abs/1802.05957, algorithm 1; in float32 also where the convolution itself
    is not."""

    def forward(self, weight: Tensor) -> Tensor:
        """A convolution's weight → the same, by its largest singular value as a matrix (C', C·k·k)."""
        with torch.autocast(weight.device.type, enabled=False):
            return super().forward(weight)


class PointTranspose(nn.ConvTranspose2d):
    """Transposed convolution of images of one pixel: a matrix product, twice as fast when computed as one (CPU)."""

    def __init__(self, channels_in: int, channels_out: int, kernel: int):
        super().__init__(channels_in, channels_out, kernel, bias=False)

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        """(N, C, 1, 1) → (N, C', k, k)"""
        order = in_memory(self.weight)
        y = x.flatten(1) @ rearrange(self.weight, f"i c h w -> i ({order})")
        return rearrange(y, f"n ({order}) -> n c h w", h=self.kernel_size[0], w=self.kernel_size[1])


class WholeConv(nn.Conv2d):
    """Convolution of images as large as its kernel: a matrix product, four times as fast when computed as one (CPU)."""

    def __init__(self, channels_in: int, channels_out: int, kernel: int):
        super().__init__(channels_in, channels_out, kernel, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, k, k) → (N, C', 1, 1)"""
        flat, weight = (rearrange(tensor, f"n c h w -> n ({in_memory(x)})") for tensor in (x, self.weight))
        return (flat @ weight.t())[:, :, None, None]


def in_memory(tensor: Tensor) -> str:
    """The order of an image's axes in memory."""
    return "h w c" if tensor.stride(1) == 1 else "c h w"
