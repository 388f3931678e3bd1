"""Latents of images yet to be drawn: numbered, mixed, cut off, and on the way from one to another."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.special import ndtr, ndtri

from gan.randomness import latents

SEEDS = re.compile(r"(\d+)(?:-(\d+))?")
MOST = 1_000_000
TERM = re.compile(r"([+-])(?:(\d+\.?\d*|\.\d+)\*)?(\d+)")


def latent(seed: int, index: int, z_dim: int) -> Tensor:
    """z ~ N(0, 1) of image number `index` of a seed: (z_dim,), float64. It depends on nothing else."""
    return latents(seed, "sample", index, 1, z_dim)[0]


def numbered(seed: int, rows: Iterable[int], z_dim: int) -> Tensor:
    """Those of several images of a seed: (n, z_dim)."""
    return torch.stack([latent(seed, index, z_dim) for index in rows])


def parse_seeds(words: Sequence[str]) -> tuple[int, ...]:
    """ "0-99", "3", "5,8" → the seeds in that order. Raises ValueError."""
    seeds: list[int] = []
    for word in re.sub(r"\s", "", ",".join(words)).split(","):
        if (found := SEEDS.fullmatch(word)) is None:
            raise ValueError(f"{word!r} is neither a seed nor a range of seeds such as 0-99")
        first, last = int(found[1]), int(found[2] or found[1])
        if last < first:
            raise ValueError(f"{word!r} ends before it begins")
        if last - first >= MOST:
            raise ValueError(f"{word!r} is more than {MOST} seeds")
        seeds += range(first, last + 1)
    return tuple(seeds)


@dataclass(frozen=True)
class Mix:
    """A sum of seeds' latents."""

    weights: dict[int, float]
    """seed → its weight, not 0."""

    def latent(self, z_dim: int) -> Tensor:
        """Σ w z / √Σ w²: again standard normal, as the seeds' latents are independent, so G is asked for nothing that
        it has not been trained on; with plain sums the length would differ. (z_dim,)"""
        total = torch.stack([weight * latent(seed, 0, z_dim) for seed, weight in self.weights.items()]).sum(0)
        return total / sum(weight**2 for weight in self.weights.values()) ** 0.5


def parse_mix(text: str) -> Mix:
    """ "3-5+7", "0.5*3+0.5*7" → a Mix. Raises ValueError."""
    signed = re.sub(r"\s", "", text if text.lstrip()[:1] in "+-" else f"+{text}")
    if not re.fullmatch(f"(?:{TERM.pattern})+", signed):
        raise ValueError(f"{text!r} is no sum of seeds such as 3-5+7 or 0.5*3+0.5*7")
    weights: dict[int, float] = {}
    for sign, factor, seed in TERM.findall(signed):
        weights[int(seed)] = weights.get(int(seed), 0) + float(sign + (factor or "1"))
    weights = {seed: weight for seed, weight in weights.items() if weight}
    if not weights:
        raise ValueError(f"{text!r} comes to nothing")
    return Mix(weights)


def truncated(z: Tensor, limit: float) -> Tensor:
    """z ~ N(0, 1) → a normal distribution cut off at ± limit: fewer rare images, and less variety (the truncation trick
    of Brock et al. 2019, https://arxiv.org/abs/1809.11096, section 3.1). Values keep their rank, where they draw those
    beyond the limit anew; so an image changes smoothly with the limit."""
    tail = ndtr(torch.tensor(-limit, dtype=z.dtype))
    return ndtri(tail + (1 - 2 * tail) * ndtr(z)).clamp(-limit, limit)


def walk(stops: Tensor, steps: int) -> Tensor:
    """Latents (stops, n, z_dim) → (stops × steps, n, z_dim): from each stop to the next and back to the first, on great
    circles, as normal latents of many numbers lie close to a sphere (White 2016, https://arxiv.org/abs/1609.04468,
    section 2.1; Shoemake 1985, https://doi.org/10.1145/325165.325242)."""
    t = torch.linspace(0, 1, steps + 1, dtype=stops.dtype, device=stops.device)[:-1, None, None]
    return torch.cat([slerp(a, b, t) for a, b in zip(stops, stops.roll(-1, 0), strict=True)])


def slerp(a: Tensor, b: Tensor, t: Tensor) -> Tensor:
    """From a (…, d) at t = 0 to b at t = 1, with even steps in angle."""
    angle = torch.nn.functional.cosine_similarity(a, b, dim=-1).clamp(-1, 1).acos().unsqueeze(-1)
    near = angle.sin() < 1e-6  # a straight line there, rather than 0 / 0
    curve = (((1 - t) * angle).sin() * a + (t * angle).sin() * b) / torch.where(near, 1, angle.sin())
    return torch.where(near, torch.lerp(*torch.broadcast_tensors(a, b, t)), curve)
