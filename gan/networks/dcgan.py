"""DCGAN: Radford et al. 2016, https://arxiv.org/abs/1511.06434, for any power-of-two resolution from 16 to 512.

With more than one scale it is MSG: every block of G renders an image of its own resolution, and D takes each of them in
where it works at that resolution (Karnewar & Wang 2020, https://arxiv.org/abs/1903.06048).
"""

import torch
from torch import Tensor, nn

from gan.networks.blocks import Layers, WholeConv, channels_at, down_block, enlarge, spectral, stem, up_block

Images = list[Tensor]


class Generator(nn.Module):
    """z (N, z_dim) → images, finest first: `scales` tensors (N, channels, side, side) in [−1, 1]."""

    def __init__(self, resolution: int, channels: int, z_dim: int, width: int,
                 layers: Layers = Layers(), dense_stem: bool = False, scales: int = 1):  # noqa: B008  # fmt: skip
        super().__init__()
        self.blocks = nn.ModuleDict({"4": stem(z_dim, channels_at(4, width), layers, dense_stem)})
        size = 8
        while size < resolution:
            self.blocks[str(size)] = up_block(channels_at(size // 2, width), channels_at(size, width), layers)
            size *= 2
        self.to_image = enlarge(channels_at(resolution // 2, width), channels, layers.kernel)
        self.scales = scales
        rendered = list(self.blocks)[len(self.blocks) + 1 - scales :]
        self.renders = nn.ModuleDict(
            {
                name: nn.ConvTranspose2d(channels_at(int(name), width), channels, 3, 1, 1, bias=False)
                for name in rendered
            }
        )

    def forward(self, z: Tensor) -> Images:
        """Latents (N, z_dim) → images (N, channels, side, side) in [−1, 1], the largest first."""
        x, images = z[:, :, None, None], []  # (N, z_dim, 1, 1)
        for size, block in self.blocks.items():
            x = block(x)  # (N, channels_at(size), size, size) for size = 4, 8, …, resolution / 2
            if size in self.renders:
                images.append(torch.tanh(self.renders[size](x)))
        return [torch.tanh(self.to_image(x)), *reversed(images)]


class Discriminator(nn.Module):
    """images, finest first: `scales` tensors (N, channels, side, side) → logits (N, 1), or (N, 64) for a score map.

    `score_map`: stop at 8×8 and give each position a logit. `injection`: channels that an image of a coarser scale is
    lifted to, as a multiple of those of the block it joins. `dropout`: probability with which a block loses a channel
    of a sample (Tompson et al. 2015, https://arxiv.org/abs/1411.4280).
    """

    def __init__(self, resolution: int, channels: int, width: int, norm_first: bool, layers: Layers = Layers(),  # noqa: B008
                 score_map: bool = False, scales: int = 1, injection: float = 0.5, dropout: float = 0):  # fmt: skip
        super().__init__()
        self.dropout = dropout
        sizes = [resolution // 2]
        while sizes[-1] > (8 if score_map else 4):
            sizes.append(sizes[-1] // 2)
        self.sizes = sizes
        lifted = {size: max(1, round(injection * channels_at(size, width))) for size in sizes[: scales - 1]}
        inputs = {size: channels_at(size, width) + lifted.get(size, 0) for size in sizes}
        self.from_image = down_block(channels, channels_at(sizes[0], width), layers, norm_first)
        self.blocks = nn.ModuleDict(
            {str(size): down_block(inputs[2 * size], channels_at(size, width), layers) for size in sizes[1:]}
        )
        self.lifts = nn.ModuleDict(
            {str(size): spectral(nn.Conv2d(channels, count, 1, bias=False), layers) for size, count in lifted.items()}
        )
        last = inputs[sizes[-1]]
        self.head = spectral(nn.Conv2d(last, 1, 1, bias=False) if score_map else WholeConv(last, 1, 4), layers)
        self.dropped = [channels_at(size, width) for size in sizes] if dropout else []

    @property
    def uniforms(self) -> int:
        """Uniform draws that one sample's dropout takes."""
        return sum(self.dropped)

    def forward(self, images: Images, u: Tensor | None = None) -> Tensor:
        """`u`: uniform draws (N, uniforms) in [0, 1); without them nothing is dropped."""
        by_size = {image.shape[-1]: image for image in images}
        kept = iter((u >= self.dropout).split(self.dropped, 1)) if u is not None and self.dropout else None
        x = images[0]
        for block in (self.from_image, *self.blocks.values()):
            x = block(x)  # (N, channels_at(size), size, size) for size = resolution / 2, …, 8, 4
            if kept is not None:
                x = x * next(kept)[:, :, None, None] / (1 - self.dropout)
            if (size := str(x.shape[-1])) in self.lifts:
                x = torch.cat([x, self.lifts[size](by_size[int(size)])], 1)
        return self.head(x).flatten(1)
