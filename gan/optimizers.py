"""The optimizers. To add one: write it here and give it a name in OPTIMIZERS."""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.optim import Optimizer

if TYPE_CHECKING:
    from gan.config import OptimizerConfig


def adam(parameters: Iterable[nn.Parameter], options: "OptimizerConfig", fused: bool) -> Optimizer:
    """Adam: Kingma & Ba 2015, https://arxiv.org/abs/1412.6980."""
    parameters, betas = list(parameters), (options.beta1, options.beta2)
    on_device = not fused and counts_on_device(parameters)
    return torch.optim.Adam(parameters, options.lr, betas, options.eps, foreach=on_device, fused=fused,
                            capturable=on_device)  # fmt: skip


def adamw(parameters: Iterable[nn.Parameter], options: "OptimizerConfig", fused: bool) -> Optimizer:
    """AdamW: Loshchilov & Hutter 2019, https://arxiv.org/abs/1711.05101."""
    parameters, betas = list(parameters), (options.beta1, options.beta2)
    on_device = not fused and counts_on_device(parameters)
    return torch.optim.AdamW(parameters, options.lr, betas, options.eps, weight_decay=options.weight_decay,
                             foreach=on_device, fused=fused, capturable=on_device)  # fmt: skip


def rmsprop(parameters: Iterable[nn.Parameter], options: "OptimizerConfig", fused: bool) -> Optimizer:
    """RMSprop: Tieleman & Hinton 2012, lecture 6.5 of Neural Networks for Machine Learning."""
    parameters = list(parameters)
    return torch.optim.RMSprop(parameters, options.lr, options.beta2, options.eps, foreach=True,
                               capturable=counts_on_device(parameters))  # fmt: skip


def counts_on_device(parameters: list[nn.Parameter]) -> bool:
    """Whether the number of steps is kept on the GPU, with the weights: a skipped update that puts it back would wait
    for the GPU otherwise."""
    return any(parameter.is_cuda for parameter in parameters)


OPTIMIZERS: dict[str, Callable[[Iterable[nn.Parameter], "OptimizerConfig", bool], Optimizer]] = {
    "adam": adam,
    "adamw": adamw,
    "rmsprop": rmsprop,
}
"""By name: (parameters, options, whether this device has fused kernels) → optimizer."""


def learning_rate(options: "OptimizerConfig", iteration: int) -> float:
    """The learning rate of an iteration, counted from 0: constant, or falling linearly to 0 at `decay_to`."""
    if not options.decay_to:
        return options.lr
    left = (options.decay_to - iteration) / (options.decay_to - options.decay_from)
    return options.lr * min(1, max(0, left))
