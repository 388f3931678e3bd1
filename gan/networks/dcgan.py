"""DCGAN: Radford et al. 2016, https://arxiv.org/abs/1511.06434, for any power-of-two resolution from 16 to 512."""

import torch
from torch import Tensor, nn

from gan.networks.blocks import channels_at, down_block, up_block

Images = list[Tensor]


class Generator(nn.Module):
    """z (N, z_dim) → images: a list of one tensor (N, channels, resolution, resolution) in [−1, 1]."""

    def __init__(self, resolution: int, channels: int, z_dim: int, width: int, norm: str = "batch"):
        super().__init__()
        self.blocks = nn.ModuleDict({"4": up_block(z_dim, channels_at(4, width), norm, stem=True)})
        size = 8
        while size < resolution:
            self.blocks[str(size)] = up_block(channels_at(size // 2, width), channels_at(size, width), norm)
            size *= 2
        self.to_image = nn.ConvTranspose2d(channels_at(resolution // 2, width), channels, 4, 2, 1, bias=False)

    def forward(self, z: Tensor) -> Images:
        x = z[:, :, None, None]  # (N, z_dim, 1, 1)
        for block in self.blocks.values():
            x = block(x)  # (N, channels_at(size), size, size) for size = 4, 8, …, resolution / 2
        return [torch.tanh(self.to_image(x))]


class Discriminator(nn.Module):
    """images: a list of one tensor (N, channels, resolution, resolution) → logits (N, 1); above 0 means real."""

    def __init__(self, resolution: int, channels: int, width: int, norm_first: bool, norm: str = "batch"):
        super().__init__()
        size = resolution // 2
        self.from_image = down_block(channels, channels_at(size, width), norm if norm_first else "none")
        self.blocks = nn.ModuleDict()
        while size > 4:
            size //= 2
            self.blocks[str(size)] = down_block(channels_at(size * 2, width), channels_at(size, width), norm)
        self.head = nn.Conv2d(channels_at(4, width), 1, 4, 1, 0, bias=False)

    def forward(self, images: Images) -> Tensor:
        (x,) = images
        x = self.from_image(x)
        for block in self.blocks.values():
            x = block(x)  # (N, channels_at(size), size, size) for size = resolution / 4, …, 8, 4
        return self.head(x).flatten(1)
