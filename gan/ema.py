"""The exponential moving average of G's weights: what samples are drawn from."""

import torch
from torch import nn

from gan.networks.batchnorm import estimate_statistics
from gan.randomness import latents

BATCHES, BATCH = 16, 64
"""Of latents, from which the average's BatchNorm has its statistics."""


@torch.no_grad()
def update_ema(average: nn.Module, model: nn.Module, decay: float, iteration: int) -> None:
    """average ← d · average + (1 − d) · model, for parameters; BatchNorm's statistics are left as they were.

    d = min(decay, (1 + iteration) / (10 + iteration)), so that the first weights are soon forgotten: a warm-up known
    from TensorFlow's ExponentialMovingAverage. `iteration` counts from 0. Averaging of GAN weights: Yazıcı et al.
    2019, https://arxiv.org/abs/1806.04498.
    """
    d = min(decay, (1 + iteration) / (10 + iteration))
    torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), 1 - d)


def fit_statistics(average: nn.Module, seed: int, z_dim: int) -> None:
    """Give the average's BatchNorm statistics of its own, before it is drawn from. Those gathered in training belong to
    the weights of the last iterations, and serve it worse (docs/evaluation.md has the figures)."""
    like = next(average.parameters())
    batches = (latents(seed, "statistics", index, BATCH, z_dim) for index in range(BATCHES))
    estimate_statistics(average, (z.to(like.dtype).to(like.device) for z in batches))
