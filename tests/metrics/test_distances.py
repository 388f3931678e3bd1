import numpy as np
import pytest
import torch
from torch import Tensor

from gan.metrics import distances
from gan.metrics.distances import frechet_distance, in_parts, kernel_distance


def points(mean: list[float], covariance: list[list[float]], count: int = 50) -> Tensor:
    """Points with exactly this mean and covariance (by n − 1): (count, d) in float64."""
    draws = np.random.default_rng(len(mean)).standard_normal((count, len(mean)))
    draws -= draws.mean(0)
    white = draws @ np.linalg.inv(np.linalg.cholesky(np.cov(draws.T))).T
    return torch.from_numpy(white @ np.linalg.cholesky(np.array(covariance)).T + np.array(mean))


def textbook_frechet(x: Tensor, y: Tensor) -> float:
    """With the covariances, and the eigenvalues of their product."""
    a, b = np.cov(x.numpy().T), np.cov(y.numpy().T)
    roots = np.sqrt(np.linalg.eigvals(a @ b).astype(complex)).real
    return float(((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(a) + np.trace(b) - 2 * roots.sum())


def test_frechet_of_independent_dimensions() -> None:
    x = points([0, 1, 2], [[1, 0, 0], [0, 4, 0], [0, 0, 9]])
    y = points([2, 1, 0], [[4, 0, 0], [0, 4, 0], [0, 0, 1]], count=30)
    assert frechet_distance(x, y) == pytest.approx((4 + 0 + 4) + (1 + 0 + 4), rel=1e-12)  # of means, of deviations


def test_frechet_of_covariances_that_do_not_commute() -> None:
    """In two dimensions the trace of a root is known: tr √A = √(tr A + 2 √det A)."""
    a, b = np.array([[2.0, 1.0], [1.0, 3.0]]), np.array([[5.0, -2.0], [-2.0, 1.0]])
    assert not np.allclose(a @ b, b @ a)
    root = np.sqrt(np.trace(a @ b) + 2 * np.sqrt(np.linalg.det(a @ b)))
    wanted = 3**2 + 4**2 + np.trace(a + b) - 2 * root
    assert frechet_distance(points([0, 0], a.tolist()), points([3, -4], b.tolist())) == pytest.approx(wanted, rel=1e-12)


@pytest.mark.parametrize(("count", "dimension"), [(300, 40), (20, 60)])
def test_frechet_as_in_the_textbook(count: int, dimension: int) -> None:
    """Also with fewer points than dimensions, where both covariances are singular."""
    rng = np.random.default_rng(1)
    mixing = rng.standard_normal((dimension, dimension))
    x, y = (torch.from_numpy(rng.standard_normal((count, dimension)) @ mixing + shift) for shift in (0, 0.3))
    assert frechet_distance(x, y) == pytest.approx(textbook_frechet(x, y), rel=1e-6)


def test_frechet_of_a_set_to_itself() -> None:
    """Nothing is lost to rounding, in float32 and far from the origin too, though scales differ by a million."""
    x = torch.randn(200, 30, generator=torch.Generator().manual_seed(0)) * torch.logspace(-3, 3, 30) + 100
    assert 0 <= frechet_distance(x, x) < 1e-9 * x.var(0).sum()


def test_kernel_by_hand() -> None:
    x, y = torch.tensor([[0.0], [1.0]]), torch.tensor([[1.0], [2.0]])
    within_x, within_y, between = 1, 27, (1 + 1 + 8 + 27) / 4
    assert kernel_distance(x, y) == pytest.approx(within_x + within_y - 2 * between)
    assert kernel_distance(x.repeat(1, 5), y.repeat(1, 5)) == pytest.approx(9.5)  # products are taken per dimension


def test_kernel_of_sets_of_different_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """Against loops, and the same in chunks."""
    x, y = torch.randn(2, 9, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    y = y[:6]

    def k(a: Tensor, b: Tensor) -> float:
        return (sum(float(a[i] * b[i]) for i in range(4)) / 4 + 1) ** 3

    within = [
        sum(k(a, b) for i, a in enumerate(z) for j, b in enumerate(z) if i != j) / len(z) / (len(z) - 1) for z in (x, y)
    ]
    wanted = sum(within) - 2 * sum(k(a, b) for a in x for b in y) / len(x) / len(y)
    assert kernel_distance(x, y) == pytest.approx(wanted, rel=1e-12)
    monkeypatch.setattr(distances, "PAIRS", 13)
    assert kernel_distance(x, y) == pytest.approx(wanted, rel=1e-12)


def test_kernel_has_no_bias() -> None:
    """Small sets of one distribution: on average nothing, within four standard errors of the mean."""
    x, y = torch.randn(2, 400, 10, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    values = torch.tensor([kernel_distance(a, b) for a, b in zip(x, y, strict=True)])
    assert values.mean().abs() < 4 * values.std() / 20
    assert values.min() < 0


def test_parts_have_no_more_pairs_than_fit() -> None:
    x, y = torch.zeros(100_000, 1), torch.zeros(5000, 1)
    assert [len(part) for part in in_parts(x, y)] == [3355] * 29 + [2705]
    assert len(in_parts(y, torch.zeros(1, 1).expand(1 << 25, 1))) == 5000
