"""Precision, recall, density and coverage of two sets of embeddings, by their nearest neighbours."""

import torch
from torch import Tensor

from gan.metrics.distances import in_parts

K = 5
SAME = 1e-13
"""Squared distances below this share of the squared lengths are rounding: the two are copies of each other."""


def neighbour_shares(real: Tensor, fake: Tensor, k: int = K) -> dict[str, float]:
    """real (n, d), fake (m, d), more than k of each → shares from 0 to 1; density may exceed 1.

    A point's ball reaches to its k-th nearest neighbour among its own kind. Precision: fakes inside any real ball.
    Recall: reals inside any fake ball (Kynkäänniemi et al. 2019, https://arxiv.org/abs/1904.06991, eq. 1 and 2).
    Density: real balls that a fake is inside, divided by k. Coverage: reals with a fake inside their ball (Naeem et al.
    2020, https://arxiv.org/abs/2002.09797, eq. 3 and 4). Memory does not grow with n m.
    """
    real, fake = real.double(), fake.double()
    real_radii, fake_radii = radii(real, k), radii(fake, k)
    inside = torch.zeros(len(fake), dtype=torch.long, device=fake.device)  # how many real balls each fake is in
    recalled, covered = [], []
    for part, limit in zip(in_parts(real, fake), in_parts(real_radii, fake), strict=True):
        distances = squared_distances(part, fake)
        recalled.append((distances <= fake_radii).any(1))
        in_ball = distances <= limit[:, None]
        covered.append(in_ball.any(1))
        inside += in_ball.sum(0)
    shares = {
        "precision": inside > 0,
        "recall": torch.cat(recalled),
        "density": inside.double() / k,
        "coverage": torch.cat(covered),
    }
    return {name: float(values.double().mean()) for name, values in shares.items()}


def radii(x: Tensor, k: int) -> Tensor:
    """(n, d) → (n,): squared distance of each to its k-th nearest neighbour, itself not counted."""
    return torch.cat([squared_distances(part, x).kthvalue(k + 1, 1).values for part in in_parts(x, x)])


def squared_distances(x: Tensor, y: Tensor) -> Tensor:
    """(n, d), (m, d) → (n, m); exactly 0 between copies."""
    lengths = x.square().sum(1)[:, None] + y.square().sum(1)
    distances = torch.addmm(lengths, x, y.T, alpha=-2)
    return torch.where(distances <= SAME * lengths, 0, distances)
