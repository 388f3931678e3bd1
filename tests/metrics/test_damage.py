"""What metrics must notice, and what some cannot: a second set of images of the same kind, damaged more and more."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from gan.metrics.comparison import Values
from gan.metrics.swd import blur
from tests.metrics.conftest import Compare

Sets = tuple[np.ndarray, np.ndarray]
Damage = Callable[[np.ndarray, float], np.ndarray]


def blurred(images: np.ndarray, times: float) -> np.ndarray:
    x = torch.from_numpy(images).permute(0, 3, 1, 2).float()
    for _ in range(int(times)):
        x = blur(x)
    return x.round().byte().permute(0, 2, 3, 1).numpy()


def noisy(images: np.ndarray, deviation: float) -> np.ndarray:
    noise = np.random.default_rng(0).normal(0, deviation, images.shape)
    return (images + noise).round().clip(0, 255).astype(np.uint8)


def without_modes(images: np.ndarray, dropped: float) -> np.ndarray:
    """The brightest of them are never generated; the others take their place."""
    kept = np.argsort(images.reshape(len(images), -1).mean(1))[: round((1 - dropped) * len(images))]
    return images[np.resize(kept, len(images))]


def copied(images: np.ndarray, share: float) -> np.ndarray:
    """So many of them are one and the same image."""
    return np.where((np.arange(len(images)) < share * len(images))[:, None, None, None], images[:1], images)


DAMAGES: dict[str, tuple[Damage, tuple[float, ...]]] = {
    "blur": (blurred, (0, 1, 3, 9)),
    "noise": (noisy, (0, 20, 40, 80)),
    "dropped modes": (without_modes, (0, 0.3, 0.6, 0.9)),
    "copied images": (copied, (0, 0.3, 0.6, 0.9)),
}


def series(name: str, metric: str, sets: Sets, compare: Compare) -> list[Values]:
    """The metric's values as the damage grows from nothing."""
    damage, degrees = DAMAGES[name]
    return [compare(sets[0], damage(sets[1], degree), metric) for degree in degrees]


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("metric", ["swd", "frechet", "kernel"])
def test_distances_grow(
    damage: str, metric: str, sets: Sets, compare: Compare, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gan.metrics.swd.REPEATS", 1)  # a fourth of the directions shows it too
    values = [value[metric] for value in series(damage, metric, sets, compare)]
    assert values == sorted(values), values
    assert values[-1] > 2 * abs(values[0]), values


@pytest.mark.parametrize("damage", DAMAGES)
def test_coverage_and_what_else_falls(damage: str, sets: Sets, compare: Compare) -> None:
    """Coverage falls with every damage. Recall cannot see copies, for what else is there covers as much as before;
    precision and density cannot see what is missing, only what does not belong."""
    values = series(damage, "prdc", sets, compare)
    first, last = values[0], values[-1]
    coverage = [value["coverage"] for value in values]
    assert coverage == sorted(coverage, reverse=True), coverage
    assert last["coverage"] < 0.8 * first["coverage"]
    if damage in ("blur", "noise", "dropped modes"):
        assert last["recall"] < first["recall"], (first, last)
    else:
        assert last["recall"] > 0.8 * first["recall"], (first, last)
    if damage == "dropped modes":
        assert last["precision"] > 0.8 * first["precision"], (first, last)


@pytest.mark.parametrize("metric", ["swd", "frechet", "kernel", "prdc"])
def test_memorised_images_pass_for_perfect(metric: str, sets: Sets, compare: Compare) -> None:
    """A set compared with itself, which is also what a generator gets that repeats its training images."""
    values = compare(sets[0], sets[0].copy(), metric)
    if metric == "prdc":
        assert values["precision"] == values["recall"] == values["coverage"] == 1
    elif metric == "kernel":
        assert -0.05 < values["kernel"] <= 0  # its estimate is free of bias for independent sets, which these are not
    else:
        assert max(values.values()) < 1e-6


def test_sliced_wasserstein_cannot_see_contrast(sets: Sets, compare: Compare) -> None:
    """Each set is normalised by itself; the other distances do see it."""
    paler = (sets[1] // 2 + 64).astype(np.uint8)
    plain = {metric: compare(*sets, metric)[metric] for metric in ("swd", "frechet")}
    assert compare(sets[0], paler, "swd")["swd"] < 1.5 * plain["swd"]
    assert compare(sets[0], paler, "frechet")["frechet"] > 10 * plain["frechet"]
