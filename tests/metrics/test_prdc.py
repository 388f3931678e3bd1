import numpy as np
import pytest
import torch
from torch import Tensor

from gan.metrics import distances
from gan.metrics.prdc import neighbour_shares, squared_distances


def column(*values: float) -> Tensor:
    return torch.tensor(values)[:, None]


def test_by_hand() -> None:
    """Balls to the nearest neighbour. Real: [−1, 1], [0, 2], [1, 5], [3, 17]; fake: [−½, 1½], [½, 2½], [−8½, ½]."""
    values = neighbour_shares(real=column(0, 1, 3, 10), fake=column(0.5, 1.5, -4), k=1)
    assert values == pytest.approx({"precision": 2 / 3, "recall": 2 / 4, "density": (2 + 2 + 0) / 3, "coverage": 3 / 4})


def test_a_ball_includes_its_surface() -> None:
    values = neighbour_shares(real=column(0, 1, 100, 101), fake=column(-1, 50, 80), k=1)
    assert values["precision"] == pytest.approx(1 / 3)


@pytest.mark.parametrize("pairs", [1 << 24, 400])
def test_against_loops(pairs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distances, "PAIRS", pairs)
    rng = np.random.default_rng(0)
    real, fake, k = rng.standard_normal((60, 3)), 0.6 * rng.standard_normal((45, 3)) + 0.5, 3

    def radius(point: np.ndarray, kind: np.ndarray) -> float:
        return float(np.sort(np.linalg.norm(kind - point, axis=1))[k])  # [0] is the point itself

    in_real = np.array([[np.linalg.norm(f - r) <= radius(r, real) for r in real] for f in fake])
    in_fake = np.array([[np.linalg.norm(f - r) <= radius(f, fake) for r in real] for f in fake])
    wanted = {
        "precision": in_real.any(1).mean(),
        "recall": in_fake.any(0).mean(),
        "density": in_real.sum() / (k * len(fake)),
        "coverage": in_real.any(0).mean(),
    }
    assert len({round(value, 6) for value in wanted.values()}) == 4
    assert 0 < min(wanted.values()) < max(wanted.values()) < 1.5
    assert neighbour_shares(torch.from_numpy(real), torch.from_numpy(fake), k) == pytest.approx(wanted)


@pytest.mark.parametrize("offset", [0, 1000])
def test_a_set_and_itself(offset: float) -> None:
    """Every point is in its own ball and in those of as many others as have it among their five nearest: 6 / 5."""
    x = torch.randn(100, 20, generator=torch.Generator().manual_seed(0)) + offset
    assert neighbour_shares(x, x) == pytest.approx({"precision": 1, "recall": 1, "density": 6 / 5, "coverage": 1})


def test_copies_are_at_no_distance_whatever_rounding_does() -> None:
    """Eight times the same point: its ball is the point."""
    x = (torch.randn(1, 300, generator=torch.Generator().manual_seed(0)) + 100).repeat(8, 1)
    assert neighbour_shares(x, x) == pytest.approx({"precision": 1, "recall": 1, "density": 8 / 5, "coverage": 1})
    assert neighbour_shares(x, x + 0.001) == pytest.approx({"precision": 0, "recall": 0, "density": 0, "coverage": 0})


def test_distances_by_another_way() -> None:
    """Rounding is cut off where it hides copies, and nowhere else."""
    x = torch.randn(200, 333, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 10
    y = torch.cat([x.flip(0), x + 1e-4])
    found, wanted = squared_distances(x, y), (x[:, None] - y).square().sum(-1)
    assert found[wanted == 0].equal(torch.zeros(200, dtype=torch.float64))
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=0)
