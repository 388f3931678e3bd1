"""Augmentation on the device, differentiable, with one draw per sample that all scales of it share.

To add one: write a function (images, draws) → images here, name it in AUGMENTS, and give it a probability of the same
name in AugmentConfig.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from gan.config import AugmentConfig
from gan.networks import Images


def flip(x: Tensor, u: Tensor) -> Tensor:
    """Mirror left and right."""
    return x.flip(3)


def flip_vertical(x: Tensor, u: Tensor) -> Tensor:
    """Mirror top and bottom."""
    return x.flip(2)


AUGMENTS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"flip": flip, "flip_vertical": flip_vertical}
"""By name: (N, C, H, W) in [−1, 1] and uniform draws (N, 3) in [0, 1) → the same shape and range."""


def augment(images: Images, u: Tensor, options: AugmentConfig) -> Images:
    """`u`: uniform draws (N, len(AUGMENTS), 4); the first of a sample's four says whether, the others how."""
    for draws, (name, function) in zip(u.unbind(1), AUGMENTS.items(), strict=True):
        probability = getattr(options, name)
        if probability > 0:
            chosen = (draws[:, 0] < probability)[:, None, None, None]
            images = [torch.where(chosen, function(x, draws[:, 1:]), x) for x in images]
    return images
