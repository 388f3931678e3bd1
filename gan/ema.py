"""The exponential moving average of G's weights: what samples are drawn from."""

import torch
from torch import nn


@torch.no_grad()
def update_ema(average: nn.Module, model: nn.Module, decay: float, iteration: int) -> None:
    """average ← d · average + (1 − d) · model for parameters; buffers (BatchNorm statistics) are copied.

    d = min(decay, (1 + iteration) / (10 + iteration)), so that the first weights are soon forgotten: a warm-up known
    from TensorFlow's ExponentialMovingAverage. `iteration` counts from 0. Averaging of GAN weights: Yazıcı et al.
    2019, https://arxiv.org/abs/1806.04498.
    """
    d = min(decay, (1 + iteration) / (10 + iteration))
    torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), 1 - d)
    for target, source in zip(average.buffers(), model.buffers(), strict=True):
        target.copy_(source)
