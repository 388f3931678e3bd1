"""Distances between two sets of embeddings."""

import torch
from torch import Tensor

PAIRS = 1 << 24
"""Of points that are looked at in one go: 134 MB of float64."""


def frechet_distance(x: Tensor, y: Tensor) -> float:
    """Fréchet distance between the Gaussians with the means and covariances of x (n, d) and y (m, d); from 0 on.

    |μx − μy|² + tr(Σx + Σy − 2 (Σx Σy)^½), Dowson & Landau 1982, eq. 4; on Inception's features it is the FID (Heusel
    et al. 2017, https://arxiv.org/abs/1706.08500, eq. 6). With Σx = Rxᵀ Rx and Σy = Ryᵀ Ry the last trace is the sum of
    the singular values of Rx Ryᵀ, so no covariance is formed and no root is taken of what rounding made negative.
    """
    x, y = x.double(), y.double()
    rx, ry = (torch.linalg.qr((z - z.mean(0)) / (len(z) - 1) ** 0.5, mode="r").R for z in (x, y))
    shared = torch.linalg.svdvals(rx @ ry.T).sum()
    distance = (x.mean(0) - y.mean(0)).square().sum() + rx.square().sum() + ry.square().sum() - 2 * shared
    return max(0.0, float(distance))


def kernel_distance(x: Tensor, y: Tensor) -> float:
    """Squared maximum mean discrepancy of x (n, d) and y (m, d), without bias: around 0, and a little below at times,
    where both come from the same distribution.

    Kernel (x·y / d + 1)³; Bińkowski et al. 2018, https://arxiv.org/abs/1801.01401, eq. 3 and section 4 (KID). They
    average over subsets of 1000; here it is taken over all pairs, which has the same mean and less spread.
    """
    x, y = x.double(), y.double()
    within = sum((kernel_sum(z, z) - kernel(z, z, paired=True).sum()) / (len(z) * (len(z) - 1)) for z in (x, y))
    return float(within - 2 * kernel_sum(x, y) / (len(x) * len(y)))


def kernel(x: Tensor, y: Tensor, paired: bool = False) -> Tensor:
    """(n, m), or (n,) of x's and y's rows in pairs."""
    products = (x * y).sum(1) if paired else x @ y.T
    return (products / x.shape[1] + 1) ** 3


def kernel_sum(x: Tensor, y: Tensor) -> Tensor:
    """Over all pairs."""
    return torch.stack([kernel(part, y).sum() for part in in_parts(x, y)]).sum()


def in_parts(x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
    """x (n, …), in parts that make at most PAIRS pairs with y (m, …): memory does not grow with n m."""
    return x.split(max(1, PAIRS // len(y)))
