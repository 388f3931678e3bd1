"""BatchNorm over the images of all processes: the same result as one process with the whole batch."""

from collections.abc import Iterable
from typing import TypeVar

import torch
from torch import Tensor, distributed, nn

Network = TypeVar("Network", bound=nn.Module)


def synchronise(module: Network, device: torch.device) -> Network:
    """Let every BatchNorm in `module` take its statistics over all processes; returns the module to use.

    On CUDA that is torch's own kernel, which has no second derivative (penalties refuse BatchNorm in D)
    and makes the host wait for the device once per layer and pass. Parameters and buffers stay the same objects under
    the same names.
    """
    if device.type == "cuda":
        return nn.SyncBatchNorm.convert_sync_batchnorm(module)
    for layer in module.modules():
        if type(layer) is nn.BatchNorm2d:
            layer.__class__ = GlobalBatchNorm2d  # the same layer with another forward
    return module


@torch.no_grad()
def estimate_statistics(network: nn.Module, batches: Iterable[Tensor]) -> None:
    """Set the running mean and variance of every BatchNorm to those over these `batches` of inputs, weighted alike
    ("standing statistics", known from BigGAN: Brock et al. 2019, https://arxiv.org/abs/1809.11096)."""
    layers = [layer for layer in network.modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm)]
    training, momenta = network.training, [layer.momentum for layer in layers]
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # torch's way of saying: the mean over all batches
    network.train()
    for batch in batches if layers else ():
        network(batch)
    network.train(training)
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum


class GlobalBatchNorm2d(nn.BatchNorm2d):
    """Ioffe & Szegedy 2015, https://arxiv.org/abs/1502.03167, algorithm 1, on any device, differentiable twice.

    Every process must hold equally many images. Statistics are computed in at least float32.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) → the same shape and dtype."""
        if not self.training:
            return super().forward(x)
        assert self.momentum is not None
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        var, mean = torch.var_mean(wide, (0, 2, 3), correction=0)
        means, variances = over_processes(torch.stack([mean, var])).unbind(1)  # (processes, C) each
        mean = means.mean(0)
        var = variances.mean(0) + (means - mean).square().mean(0)  # within the processes, and between them
        with torch.no_grad():
            count = len(means) * x.numel() // x.shape[1]
            assert self.running_mean is not None
            assert self.running_var is not None
            assert self.num_batches_tracked is not None
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(var * count / max(count - 1, 1), self.momentum)
            self.num_batches_tracked.add_(1)
        scale = self.weight * torch.rsqrt(var + self.eps)
        centred = wide - mean[:, None, None]
        return torch.addcmul(self.bias[:, None, None], centred, scale[:, None, None]).to(x.dtype)


def over_processes(values: Tensor) -> Tensor:
    """Every process' `values`, stacked along a new first dimension: one collective, differentiable at any order."""
    processes, rank = distributed.get_world_size(), distributed.get_rank()
    places = torch.arange(processes, device=values.device) == rank
    return SumOverProcesses.apply(torch.where(places.view(-1, *[1] * values.dim()), values, 0))  # type: ignore[no-untyped-call]


class SumOverProcesses(torch.autograd.Function):
    """Sum of a tensor over all processes. Its gradient is the sum of the gradients, as every process' output depends
    on every process' input. (torch.distributed.nn.functional.all_reduce is the same, but deprecated in torch 2.13+.)"""

    @staticmethod
    def forward(ctx: object, values: Tensor) -> Tensor:
        """Every process gets the sum."""
        total = values.clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> Tensor:
        """The gradient of a sum over processes is the sum of their gradients, itself differentiable."""
        return SumOverProcesses.apply(gradient)  # type: ignore[no-untyped-call]
