"""The nearest real images of generated ones: has the generator learnt to draw, or learnt by heart?"""

from collections.abc import Callable, Sequence
from itertools import combinations

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from gan.metrics.prdc import squared_distances

Convert = Callable[[np.ndarray], np.ndarray]
"""Pixels (n, H, W, C) → those to compare: in one colour space, over a background."""
BLOCK_BYTES, QUERY_BYTES = 16 << 20, 256 << 20
"""Of real images that are looked at in one go; and of those, as float64, that are held against all others."""
FEW = 100
"""Distances of which a twentieth can be told, so that no fewer are taken, however large the images."""


def nearest_images(queries: np.ndarray, real: np.ndarray, k: int, convert: Convert,
                   axes: Sequence[int] = ()) -> tuple[Tensor, Tensor]:  # fmt: skip
    """uint8 (n, H, W, C) and (m, H, W, C), k ≤ m → distances (n, k), and which real images those are, nearest first.

    A distance is the root of the mean squared difference of two images' values, once both are converted, in levels from
    0 to 255; or, if that is smaller, of one and a mirror image of the other, along any of the `axes` (1: top to
    bottom, 2: left to right). Of real images a block at a time is in memory.
    """
    turns = [turn for number in range(len(axes) + 1) for turn in combinations(axes, number)]
    views = [rows(convert(np.flip(queries, turn))) for turn in turns]
    x = views[0]
    distances, numbers = torch.empty(len(x), 0, dtype=torch.float64), torch.empty(len(x), 0, dtype=torch.long)
    size = max(k, BLOCK_BYTES // x.shape[1])
    for start in tqdm(range(0, len(real), size), "Nearest", unit="block", delay=2, leave=False, disable=None):
        y = rows(convert(real[start : start + size]))
        block = torch.stack([squared_distances(view, y) for view in views]).amin(0)
        places = torch.arange(start, start + block.shape[1]).expand_as(block)
        distances, order = torch.cat([distances, block], 1).sort(dim=1, stable=True)
        numbers = torch.cat([numbers, places], 1).gather(1, order)[:, :k]
        distances = distances[:, :k]
    return (distances.clamp(min=0) / x.shape[1]).sqrt(), numbers


def rows(images: np.ndarray) -> Tensor:
    """(n, …) → float64 (n, values of an image), centred, which keeps the products small."""
    return torch.from_numpy(images.reshape(len(images), -1).astype(np.float64)).sub_(127.5)


def distances_among(real: np.ndarray, convert: Convert, axes: Sequence[int] = (), count: int = 500) -> Tensor:
    """How far real images are from the nearest other one that is not their copy, in the same levels: (up to `count`,),
    fewer of large ones, for images from all over the set."""
    count = min(count, max(FEW, QUERY_BYTES // (8 * 3 * real[0, :, :, 0].size)))
    chosen = np.linspace(0, len(real) - 1, min(count, len(real))).astype(int)
    near, _ = nearest_images(real[chosen], real, min(8, len(real)), convert, axes)
    others = torch.where(near > 0, near, torch.inf).amin(1)
    return others[others.isfinite()]
