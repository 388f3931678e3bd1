"""Every random number of a run, computed from (seed, purpose, index).

Nothing here keeps state: the same three values give the same draws in any process, at any time, on any
machine. A run can therefore stop, move to another number of processes and go on along the same path, and
no generator ever needs saving. Draws are always made for the whole global batch; a process slices its rows.
"""

import zlib
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import _SpectralNorm
from torch.nn.utils.parametrize import is_parametrized


def generator(seed: int, purpose: str, index: int = 0) -> np.random.Generator:
    """A fresh NumPy generator that depends on nothing but its arguments.

    `purpose` names what is drawn ("latents", "order", …), so that different uses of one iteration never share
    numbers. `seed` and `index` are non-negative; NumPy's SeedSequence mixes the three.
    """
    return np.random.default_rng((seed, zlib.crc32(purpose.encode()), index))


def latents(seed: int, purpose: str, index: int, count: int, dimension: int) -> Tensor:
    """z ~ N(0, 1) of shape (count, dimension), float64 on the CPU.

    Drawn in double precision whatever the run's dtype, so that runs in float32 and float64 see the same latents.
    """
    return torch.from_numpy(generator(seed, purpose, index).standard_normal((count, dimension)))


def uniform(seed: int, purpose: str, index: int, *shape: int) -> Tensor:
    """Uniform draws in [0, 1) of this shape, float64 on the CPU."""
    return torch.from_numpy(generator(seed, purpose, index).random(shape))


def image_order(seed: int, images: int, start: int, count: int) -> np.ndarray:
    """Which images stand at positions start … start + count − 1 of the training stream: int64, shape (count,).

    The stream is one shuffled pass over all `images` after the other, each shuffled by (seed, epoch). A batch may
    straddle two passes, so no image is ever left out.
    """
    positions = np.arange(start, start + count)
    epochs = positions // images
    order = np.empty(count, dtype=np.int64)
    for epoch in range(epochs[0], epochs[-1] + 1):
        here = epochs == epoch
        order[here] = permutation(seed, images, int(epoch))[positions[here] % images]
    return order


@lru_cache(maxsize=2)
def permutation(seed: int, images: int, epoch: int) -> np.ndarray:
    """The order of one pass: int64, shape (images,). The two passes a batch can touch stay in memory."""
    return generator(seed, "order", epoch).permutation(images)


def initialise(module: nn.Module, seed: int, name: str, std: float = 0.02) -> None:
    """Draw the weights of `module` in place, each from (seed, its own name).

    Convolutions ~ N(0, std), BatchNorm scales ~ N(1, std), BatchNorm shifts 0 (Radford et al. 2016,
    https://arxiv.org/abs/1511.06434, section 4, and its reference code). A weight's draw does not depend on the
    rest of the network, so two networks that share a block by name start with the same weights in it.
    """
    for layer_name, layer in module.named_modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.modules.batchnorm._BatchNorm):
            mean = 1.0 if isinstance(layer, nn.modules.batchnorm._BatchNorm) else 0.0
            draw = generator(seed, f"initialise/{name}.{layer_name}.weight")
            weight = layer.get_parameter("parametrizations.weight.original" if is_parametrized(layer) else "weight")
            copy_into(weight, draw.normal(mean, std, tuple(weight.shape)))
        elif isinstance(layer, _SpectralNorm):
            for which in ("_u", "_v"):  # the singular vectors, estimated on and on from a random start
                vector = generator(seed, f"initialise/{name}.{layer_name}.{which}").normal(
                    size=len(getattr(layer, which))
                )
                copy_into(getattr(layer, which), vector / np.linalg.norm(vector))


@torch.no_grad()
def copy_into(target: Tensor, values: np.ndarray) -> None:
    """Fill `target` with values of its shape."""
    target.copy_(torch.from_numpy(values))
