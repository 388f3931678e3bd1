"""Whether a run goes well: figures of D and of the samples, and a verdict in words.

`separation` is part of D's update, at every iteration; `Diversity` looks at samples at the log interval; `judge` reads
both from the log, so that a run that goes on from a checkpoint comes to the same verdict. A new verdict is an entry in
VERDICTS.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from torch import Tensor

from gan.metrics.swd import laplacian, pyramid_sides

Entry = dict[str, Any]

LEVEL = 2 / 255
"""Between one of the 256 levels of an image and the next, in [−1, 1]."""
TWIN = 0.2
"""A sample is a duplicate when its nearest neighbour is closer than this, a multiple of what is usual in the data."""


def separation(real: Tensor, fake: Tensor, boundary: float | None) -> dict[str, Tensor]:
    """What D makes of a batch; logits of equal shape → 0-d tensors.

    sign: mean sign of D on real images, −1…1; near 1 when D has learnt them by heart (Karras et al. 2020,
    https://arxiv.org/abs/2006.06676, eq. 1, r_t, where 0.6 is aimed at). accuracy: share of pairs of a real image and a
    fake that D ranks rightly, ½…1. margin: mean logit of real images less that of fakes.
    """
    real, fake = real.detach(), fake.detach()
    values = {"health/accuracy": (real > fake).to(real.dtype).mean(), "health/margin": (real - fake).mean()}
    if boundary is not None:
        values["health/sign"] = (real - boundary).sign().mean()
    return values


class Diversity:
    """Compares samples with as many real images: (N, C, H, W) in [−1, 1], N ≥ 2."""

    def __init__(self, real: Tensor):
        self.distances = [spread(band) for band in bands(real)]
        self.usual = nearest(real).median()
        self.real_edges = edges(real)

    @torch.no_grad()
    def of(self, fake: Tensor) -> dict[str, float]:
        """diversity: mean distance between two samples, as a multiple of that between two real images, in pixels;
        structure: in the bands of a Laplacian pyramid, each at most 1, their mean. duplicates: share of samples with a
        near-identical one among the others (the birthday test of Arora & Zhang 2017, https://arxiv.org/abs/1706.08224).
        saturated, constant: share of values at the ends of the range, and of those that all samples have in common;
        both so that 0 is as in the real images and 1 is all. Reads the device."""
        pixels, *structure = [spread(band) / real.clamp_min(1e-12) for band, real in
                              zip(bands(fake), self.distances, strict=True)]  # fmt: skip
        saturated, constant = (edges(fake) - self.real_edges) / (1 - self.real_edges).clamp_min(1e-3)
        values = {
            "diversity": pixels,
            "structure": torch.stack(structure).clamp_max(1).mean(),
            "duplicates": (nearest(fake) < TWIN * self.usual).to(fake.dtype).mean(),
            "saturated": saturated,
            "constant": constant,
        }
        return {
            f"health/{name}": value
            for name, value in zip(values, torch.stack([*values.values()]).tolist(), strict=True)
        }


def bands(images: Tensor) -> list[Tensor]:
    """The images, then each level of their Laplacian pyramid."""
    return [images, *(laplacian(images, level) for level in range(len(pyramid_sides(images.shape[-1]))))]


def distances(images: Tensor) -> Tensor:
    """(N, …) → (N, N): root mean square difference of any two."""
    flat = images.flatten(1)
    return torch.cdist(flat, flat) / flat.shape[1] ** 0.5


def spread(images: Tensor) -> Tensor:
    """Mean distance of two different ones."""
    n = len(images)
    return distances(images).sum() / (n * (n - 1))


def nearest(images: Tensor) -> Tensor:
    """(N, …) → (N,): distance to the nearest other one."""
    return distances(images).fill_diagonal_(torch.inf).amin(1)


def edges(images: Tensor) -> Tensor:
    """(2,): share of the values within a level of the ends of the range; share of those (C, H, W) that differ by less
    than a level (standard deviation) between the images."""
    saturated = images.abs() > 1 - LEVEL
    constant = images.std(0) < LEVEL
    return torch.stack([saturated.to(images.dtype).mean(), constant.to(images.dtype).mean()])


WINDOW, LEAST = 500, 3
"""Iterations, and entries of the log, that a verdict is about: a condition that passes sooner is no cause for alarm."""
BEGINNING, HEALTHY = "starting", "healthy"
"""Before there is so much to judge by; where no verdict below holds."""


@dataclass(frozen=True)
class Verdict:
    """`holds` for the medians over a window, and what loss/d is where D can tell nothing (0: unknown)."""

    holds: Callable[[Entry, float], bool]
    advice: str


def diverged(medians: Entry, undecided: float) -> bool:
    """More than one update in ten was skipped, its gradients not finite; or half of what should be between the ends of
    the range sticks to them."""
    return medians.get("skipped", 0) > 0.1 or medians.get("health/saturated", 0) > 0.5


def collapsed(medians: Entry, undecided: float) -> bool:
    """Samples differ by less than a tenth of what real images differ by. Or most have a twin, after they have once
    differed by half: while G learns what all images have in common, twins are no fault."""
    twins = medians.get("health/duplicates", 0) > 0.5
    return medians.get("health/diversity", 1) < 0.1 or (twins and medians["best"] > 0.5)


def discriminator_wins(medians: Entry, undecided: float) -> bool:
    """D's loss is less than a twentieth of what it is where D can tell nothing."""
    return undecided > 0 and medians.get("loss/d", undecided) < 0.05 * undecided


VERDICTS = {
    "diverged": Verdict(
        diverged,
        "the numbers run away. Lower --optim-d.lr and --optim-g.lr; in mixed precision, try --mixed_precision no.",
    ),
    "mode collapse": Verdict(
        collapsed,
        "G draws the same few images whatever its latents. Go on from an earlier checkpoint (--resume CHECKPOINT) with "
        "lower learning rates, a larger batch, or --objective.penalty r1 with --model.norm-d none; not with "
        "--objective.loss saturating.",
    ),
    "discriminator winning": Verdict(
        discriminator_wins,
        "D tells almost every sample from a real image, which teaches G little. Lower --optim-d.lr; with few images "
        "add --augment.translation 1 --augment.color 1 --augment.fakes True; with --objective.loss saturating take "
        "non-saturating. If the samples still improve, it may go on.",
    ),
}
"""By name, the gravest first. Thresholds: docs/monitoring.md says which runs they were held against."""


def judge(entries: Sequence[Entry], undecided: float, best: float = 0) -> str:
    """A verdict on the newest of these entries of the log, in order; only those of the window count. `best`: the
    highest diversity that the run has had since its first window."""
    window = recent(entries)
    if len(window) < LEAST or window[-1]["iteration"] < WINDOW:
        return BEGINNING
    medians = medians_of(window) | {"best": best}
    return next((name for name, verdict in VERDICTS.items() if verdict.holds(medians, undecided)), HEALTHY)


def reached(entry: Entry) -> float:
    """The samples' diversity, where it was measured and is not what G began with; else 0."""
    return (entry.get("health/diversity") or 0.0) if entry["iteration"] > WINDOW else 0.0


def recent(entries: Sequence[Entry]) -> Sequence[Entry]:
    """Those of the last `WINDOW` iterations, and no fewer than `LEAST`."""
    since = entries[-1]["iteration"] - WINDOW if entries else 0
    return entries[-max(LEAST, sum(entry["iteration"] > since for entry in entries)) :]


def medians_of(window: Sequence[Entry]) -> Entry:
    """Of each figure, over the entries that have it; `skipped`: the share of updates that were, of the player that
    skipped more."""
    names = {name for entry in window for name in entry}
    columns = {name: [entry[name] for entry in window if isinstance(entry.get(name), int | float)] for name in names}
    medians: Entry = {name: median(values) for name, values in columns.items() if values}
    iterations = window[-1]["iteration"] - window[0]["iteration"]
    skipped = [values[-1] - values[0] for name, values in columns.items() if values and name.startswith("amp/skipped")]
    return medians | {"skipped": max(skipped, default=0) / max(iterations, 1)}
