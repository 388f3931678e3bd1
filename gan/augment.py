"""Augmentation on the device, differentiable, with one draw per sample that all scales of it share.

To add one: write a function (images, draws, background) → images here, name it in AUGMENTS, and give it a probability
of the same name in AugmentConfig.
"""

from collections.abc import Callable

import torch
from PIL import ImageColor
from torch import Tensor

from gan.config import AugmentConfig, Config
from gan.networks import Images

REACH = 1 / 8  # how far shift and translation move, as a share of the side; DiffAugment's value


def flip(x: Tensor, u: Tensor, background: Tensor) -> Tensor:
    """Mirror left and right."""
    return x.flip(3)


def flip_vertical(x: Tensor, u: Tensor, background: Tensor) -> Tensor:
    """Mirror top and bottom."""
    return x.flip(2)


def shift(x: Tensor, u: Tensor, background: Tensor) -> Tensor:
    """Move in one of four directions by up to an eighth of the side, and fill up with the background."""
    distance = (u[:, 0] * REACH * x.shape[3]).round().long()
    direction = (u[:, 1] * 4).long()
    none = torch.zeros_like(distance)
    down = torch.where(direction == 0, distance, torch.where(direction == 1, -distance, none))
    right = torch.where(direction == 2, distance, torch.where(direction == 3, -distance, none))
    return moved(x, down, right, background)


def color(x: Tensor, u: Tensor, background: Tensor) -> Tensor:
    """Brightness by ±0.5, saturation by 0 to 2, contrast by 0.5 to 1.5: Zhao et al. 2020 (DiffAugment),
    https://arxiv.org/abs/2006.10738. Alpha stays as it is."""
    brightness, saturation, contrast = u.view(-1, 3, 1, 1, 1).unbind(1)
    visible, alpha = x[:, :3], x[:, 3:]
    visible = visible + brightness - 0.5
    grey = visible.mean(1, keepdim=True)
    visible = (visible - grey) * (2 * saturation) + grey
    mean = visible.mean((1, 2, 3), keepdim=True)
    return torch.cat([(visible - mean) * (contrast + 0.5) + mean, alpha], 1)


def translation(x: Tensor, u: Tensor, background: Tensor) -> Tensor:
    """Move by up to an eighth of the side along both axes, and fill up with mid grey: DiffAugment."""
    reach = round(REACH * x.shape[3])
    down, right = ((u[:, :2] * (2 * reach + 1)).long() - reach).unbind(1)
    return moved(x, down, right, torch.zeros_like(background))


def cutout(x: Tensor, u: Tensor, background: Tensor) -> Tensor:
    """Cover a square of half the side with mid grey; its centre may lie anywhere: DiffAugment."""
    side = x.shape[3]
    place = torch.arange(side, device=x.device)
    start = (u[:, :2] * (side + 1)).long() - side // 4
    rows, columns = ((place >= begin[:, None]) & (place < begin[:, None] + side // 2) for begin in start.unbind(1))
    return torch.where((rows[:, :, None] & columns[:, None, :])[:, None], 0, x)


AUGMENTS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "flip": flip,
    "flip_vertical": flip_vertical,
    "shift": shift,
    "color": color,
    "translation": translation,
    "cutout": cutout,
}
"""By name: (N, C, H, W) in [−1, 1], uniform draws (N, 3) in [0, 1), and the background (C, 1, 1) → the same shape.
`color` may leave the range, as its source does."""


def augment(images: Images, u: Tensor, options: AugmentConfig, background: Tensor) -> Images:
    """`u`: uniform draws (N, len(AUGMENTS), 4); the first of a sample's four says whether, the others how."""
    for draws, (name, function) in zip(u.unbind(1), AUGMENTS.items(), strict=True):
        probability = getattr(options, name)
        if probability > 0:
            chosen = (draws[:, 0] < probability)[:, None, None, None]
            images = [torch.where(chosen, function(x, draws[:, 1:], background), x) for x in images]
    return images


def background_of(config: Config, device: torch.device, dtype: torch.dtype) -> Tensor:
    """The colour behind transparent pixels as D sees it: (C, 1, 1) in [−1, 1]; with alpha, transparent."""
    color, channels = config.data_options.background, config.channels
    levels = [ImageColor.getcolor(color, "L")] if channels == 1 else [*ImageColor.getrgb(color)[:3], 0][:channels]
    return (torch.tensor(levels, dtype=dtype) / 127.5 - 1).view(-1, 1, 1).to(device)


def moved(x: Tensor, down: Tensor, right: Tensor, fill: Tensor) -> Tensor:
    """Each image moved by its own whole number of pixels, `down` and `right` (N,); `fill` (C, 1, 1) where it was."""
    count, _, height, width = x.shape
    rows = torch.arange(height, device=x.device) - down[:, None]  # (N, H): where each row comes from
    columns = torch.arange(width, device=x.device) - right[:, None]
    inside = ((rows >= 0) & (rows < height))[:, :, None] & ((columns >= 0) & (columns < width))[:, None, :]
    samples = torch.arange(count, device=x.device)[:, None, None]
    found = x.permute(0, 2, 3, 1)[samples, rows.clamp(0, height - 1)[:, :, None], columns.clamp(0, width - 1)[:, None]]
    return torch.where(inside[:, None], found.permute(0, 3, 1, 2), fill)
