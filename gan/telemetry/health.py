"""Whether a run goes well: figures of D and of the samples, and a verdict in words.

`separation` is part of D's update, at every iteration; `Diversity` looks at samples at the log interval; a `Judge`
reads both from the log, so that a run that goes on from a checkpoint comes to the same verdict. A new verdict is an
entry in VERDICTS.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate

Entry = dict[str, Any]

LEVEL = 2 / 255
"""Between one of the 256 levels of an image and the next, in [−1, 1]."""
TWIN = 0.2
"""A sample is a duplicate when its nearest neighbour is closer than this, a multiple of what is usual in the data."""
COARSEST = 8
"""Pixels across, of the last band."""
LITTLE = 0.01
"""A share of the values, or a distance between real images, below which nothing can be compared with it."""


def separation(real: Tensor, fake: Tensor, boundary: float | None) -> dict[str, Tensor]:
    """What D makes of a batch; logits of equal shape → 0-d tensors.

    sign: mean sign of D on real images, −1…1; near 1 when D has learnt them by heart (Karras et al. 2020,
    https://arxiv.org/abs/2006.06676, eq. 1, r_t, where 0.6 is aimed at). accuracy: share of pairs of a real image and a
    fake that D ranks rightly, a tie being half: ½ is guessing. margin: mean logit of real images less that of fakes.
    """
    real, fake = real.detach(), fake.detach()
    margin = real - fake
    values = {"health/accuracy": (1 + margin.sign().mean()) / 2, "health/margin": margin.mean()}
    if boundary is not None:
        values["health/sign"] = (real - boundary).sign().mean()
    return values


class Diversity:
    """Compares samples with as many real images: (N, C, H, W) in [−1, 1], N ≥ 2."""

    def __init__(self, real: Tensor, count: int):
        """`count`: how many images there are in the whole set."""
        self.spreads = torch.stack([spread(band) for band in bands(real)])
        apart = distances(real)
        near = torch.where(apart > 0, apart, torch.inf).amin(1)  # to an image that is no copy
        self.usual = torch.where(near.isfinite(), near, 0).median()
        by_chance = torch.tensor(1 - (1 - 1 / count) ** (len(real) - 1)).to(real)  # among draws from so few images
        self.real_shares = torch.stack([by_chance, *edges(real)])

    @torch.no_grad()
    def of(self, fake: Tensor) -> dict[str, float]:
        """diversity: mean distance between two samples, as a multiple of that between two real images, in pixels;
        structure: in the bands of a Laplacian pyramid, each at most 1, the mean of those in which real images differ.
        Not a number where all real images are the same.

        duplicates: share of samples with a near-identical one among the others (the birthday test of Arora & Zhang
        2017, https://arxiv.org/abs/1706.08224). saturated, constant: shares of the values at the ends of the range, and
        of those that all samples have in common. These three so that 0 is as in the real images, below 0 less and 1
        all; not a number where that is nearly all in the real images. Reads the device."""
        ratios = torch.stack([spread(band) for band in bands(fake)]) / self.spreads
        ratios = torch.where(self.spreads < LITTLE / 10, torch.nan, ratios)
        duplicates = (nearest(fake) < TWIN * self.usual).to(fake.dtype).mean()
        left = 1 - self.real_shares
        excess = (torch.stack([duplicates, *edges(fake)]) - self.real_shares) / left
        excess = torch.where(left < LITTLE, torch.nan, excess)
        values = torch.stack([ratios[0], ratios[1:].clamp_max(1).nanmean(), *excess]).tolist()
        names = ("diversity", "structure", "duplicates", "saturated", "constant")
        return {f"health/{name}": value for name, value in zip(names, values, strict=True)}


def bands(images: Tensor) -> list[Tensor]:
    """The images, then what each scale has and the next coarser one has not, and the coarsest: a Laplacian pyramid
    (Burt & Adelson 1983, https://doi.org/10.1109/TCOM.1983.1095851), of means of 2×2 pixels."""
    found = [images]
    while images.shape[-1] > COARSEST:
        coarser = avg_pool2d(images, 2)
        found.append(images - interpolate(coarser, scale_factor=2))
        images = coarser
    return [*found, images]


def distances(images: Tensor) -> Tensor:
    """(N, …) → (N, N): root mean square difference of any two."""
    flat = images.flatten(1)
    exact = "donot_use_mm_for_euclid_dist"  # by products, copies come out some 1e-4 apart
    return torch.cdist(flat, flat, compute_mode=exact) / flat.shape[1] ** 0.5


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
    """`holds` for the medians over a window, as `Judge.medians` makes them."""

    holds: Callable[[Entry], bool]
    advice: str


def diverged(medians: Entry) -> bool:
    """More than one update in ten was skipped, its gradients not finite; or half of what should lie between the ends of
    the range sticks to them, and to the same end in all samples."""
    stuck = min(medians.get("health/saturated", 0), medians.get("health/constant", 0))
    return medians["skipped"] > 0.1 or stuck > 0.5


def collapsed(medians: Entry) -> bool:
    """Samples differ by less than a tenth of what real images differ by, or most have a twin: after they have once
    differed by half, since while G learns what all images have in common that is no fault. Before, a twentieth."""
    twins, diversity = medians.get("health/duplicates", 0) > 0.5, medians.get("health/diversity", 1)
    return twins or diversity < 0.1 if medians["best"] > 0.5 else diversity < 0.05


def discriminator_wins(medians: Entry) -> bool:
    """D's loss is less than a twentieth of what it is where D can tell nothing."""
    return medians["undecided"] > 0 and medians.get("loss/d", 1) < 0.05 * medians["undecided"]


GO_ON = "go on from an earlier checkpoint (--resume RUN/checkpoints/… --resume-changed True)"
VERDICTS = {
    "diverged": Verdict(
        diverged,
        f"The numbers run away. Lower --optim-d.lr and --optim-g.lr and {GO_ON}; in mixed precision, try "
        "--mixed_precision no.",
    ),
    "mode collapse": Verdict(
        collapsed,
        f"G draws the same few images whatever its latents. Lower the learning rates and {GO_ON}; or begin a new run "
        "with a larger batch, or with --objective.penalty r1 --model.norm-d none, and not with --objective.loss "
        "saturating.",
    ),
    "discriminator winning": Verdict(
        discriminator_wins,
        f"D tells almost every sample from a real image, which teaches G little. Lower --optim-d.lr, or with few "
        f"images add --augment.translation 1 --augment.color 1 --augment.fakes True, and {GO_ON}; with "
        "--objective.loss saturating begin anew with non-saturating. Where the samples still improve it may go on.",
    ),
}
"""By name, the gravest first. Thresholds: docs/monitoring.md says which runs they were held against."""
JUDGED = ("loss/d", "health/duplicates", "health/diversity", "health/saturated", "health/constant")


@dataclass(frozen=True)
class Judge:
    """`undecided`: what loss/d is where D can tell nothing, 0 where that is not known. `n_critic`: D's updates in an
    iteration."""

    undecided: float
    n_critic: int = 1

    def __call__(self, entries: Sequence[Entry], best: float = 0) -> str:
        """A verdict on the newest of these entries of the log, in order; only those of the window count. `best`: the
        highest diversity that the run has had since its first window."""
        window = recent(entries)
        if len(window) < LEAST or spanned(window) < WINDOW:
            return BEGINNING
        medians = self.medians(window) | {"best": best, "undecided": self.undecided}
        return next((name for name, verdict in VERDICTS.items() if verdict.holds(medians)), HEALTHY)

    def medians(self, window: Sequence[Entry]) -> Entry:
        """Of each figure, over the entries that have it; `skipped`: the share of updates that were, of the player that
        skipped more."""
        columns = {name: [entry[name] for entry in window if entry.get(name) is not None] for name in JUDGED}
        iterations = window[-1]["iteration"] - window[0]["iteration"]
        skipped = [
            (window[-1].get(f"amp/skipped_{player}", 0) - window[0].get(f"amp/skipped_{player}", 0)) / updates
            for player, updates in (("d", self.n_critic * iterations), ("g", iterations))
        ]
        return {name: median(values) for name, values in columns.items() if values} | {"skipped": max(skipped)}


def reached(entry: Entry) -> float:
    """The samples' diversity, where it was measured and is not what G began with; else 0."""
    return (entry.get("health/diversity") or 0.0) if entry["iteration"] > WINDOW else 0.0


def recent(entries: Sequence[Entry]) -> Sequence[Entry]:
    """Those of the last `WINDOW` iterations, and no fewer than `LEAST`."""
    since = entries[-1]["iteration"] - WINDOW if entries else 0
    return entries[-max(LEAST, sum(entry["iteration"] > since for entry in entries)) :]


def spanned(window: Sequence[Entry]) -> int:
    """Iterations that these entries are about; an entry is about those since the one before."""
    first, second = window[0]["iteration"], window[1]["iteration"]
    return window[-1]["iteration"] - first + (second - first)
