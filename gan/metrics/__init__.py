"""Measures of how near generated images are to real ones. To add one: write it and name it in METRICS."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from gan.metrics.comparison import Comparison, Values
from gan.metrics.distances import frechet_distance, kernel_distance
from gan.metrics.features import RandomNetwork
from gan.metrics.fidelity import FEATURES, SPLITS, Inception, inception_score
from gan.metrics.prdc import K, neighbour_shares
from gan.metrics.swd import DESCRIPTORS, DIRECTIONS, PATCHES, REPEATS, pyramid_distances

EMBEDDINGS: dict[str, Callable[[int, Path | None], RandomNetwork | Inception]] = {
    "random": lambda resolution, weights: RandomNetwork(resolution),
    "inception": lambda resolution, weights: Inception(weights),
}
"""Networks by name, built from (resolution, file of weights)."""


@dataclass(frozen=True)
class Metric:
    """How it is computed, and how to read it."""

    compute: Callable[[Comparison], Values]
    """Its values, on the main process; nothing on the others. A collective."""
    better: str
    """lower or higher."""
    network: str | None = None
    """Whose embeddings it takes: a name in EMBEDDINGS."""
    least: int = 1
    """Images of each kind that it needs."""
    chief: str = ""
    """Which of its values to judge by, where that is not the one of its own name."""
    protocol: dict[str, Any] = field(default_factory=dict)
    """What its value depends on, besides the images and the embedding."""


def of_embeddings(
    compute: Callable[[Tensor, Tensor], Values], better: str, network: str, least: int, chief: str = "", **protocol: Any
) -> Metric:
    """A metric from `compute(real, fake)`, which takes embeddings (n, d)."""

    def compare(comparison: Comparison) -> Values:
        real, fake = comparison.embeddings(network)
        return comparison.on_main(lambda: compute(real, fake))

    return Metric(compare, better, network, least, chief, protocol)


def prefixed(values: Values, prefix: str) -> Values:
    """The values under names that begin with `prefix`."""
    return {prefix + name: value for name, value in values.items()}


METRICS: dict[str, Metric] = {
    "swd": Metric(
        pyramid_distances,
        "lower",
        protocol={
            "times": 1000,
            "patches": f"7×7, up to {PATCHES} of an image and {DESCRIPTORS} in all at each scale",
            "directions": DIRECTIONS * REPEATS,
        },
    ),
    "frechet": of_embeddings(lambda real, fake: {"frechet": frechet_distance(real, fake)}, "lower", "random", 2),
    "kernel": of_embeddings(
        lambda real, fake: {"kernel": kernel_distance(real, fake)}, "lower", "random", 2, kernel="(x·y / d + 1)³"
    ),
    "prdc": of_embeddings(neighbour_shares, "higher", "random", K + 1, "coverage", neighbours=K),
    "fid": of_embeddings(
        lambda real, fake: {"fid": frechet_distance(real[:, :FEATURES], fake[:, :FEATURES])}, "lower", "inception", 2
    ),
    "kid": of_embeddings(
        lambda real, fake: {"kid": kernel_distance(real[:, :FEATURES], fake[:, :FEATURES])},
        *("lower", "inception", 2),
        kernel="(x·y / d + 1)³",
    ),
    "is": of_embeddings(
        lambda real, fake: inception_score(fake[:, FEATURES:]), "higher", "inception", SPLITS, parts=SPLITS
    ),
    "inception-prdc": of_embeddings(
        lambda real, fake: prefixed(neighbour_shares(real[:, :FEATURES], fake[:, :FEATURES]), "inception_"),
        *("higher", "inception", K + 1, "inception_coverage"),
        neighbours=K,
    ),
}
"""Each compares real with generated images; docs/evaluation.md says what each can and cannot tell."""
