import math

import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits as reference

from gan.objectives import LOSSES

ATOL = 1e-14  # float64: a few units in the last place of values up to about 10


@pytest.fixture
def logits() -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    real, fake = torch.randn(2, 64, 1, generator=draw, dtype=torch.float64) * 4
    return real, fake


@pytest.mark.parametrize("name", ["non-saturating", "saturating"])
def test_discriminator_is_binary_cross_entropy(name: str, logits: tuple[torch.Tensor, torch.Tensor]) -> None:
    real, fake = logits
    loss = LOSSES[name].discriminator(real, fake).mean()
    both = torch.cat([real, fake])
    labels = torch.cat([torch.ones_like(real), torch.zeros_like(fake)])
    torch.testing.assert_close(loss, reference(both, labels), rtol=0, atol=ATOL)


def test_generators(logits: tuple[torch.Tensor, torch.Tensor]) -> None:
    _, fake = logits
    D = torch.sigmoid(fake)
    torch.testing.assert_close(LOSSES["non-saturating"].generator(fake), -D.log(), rtol=0, atol=1e-11)
    torch.testing.assert_close(LOSSES["saturating"].generator(fake), (1 - D).log(), rtol=0, atol=1e-11)


def test_both_losses_are_log_2_at_the_optimum() -> None:
    zero = torch.zeros(8, 1, dtype=torch.float64)
    loss = LOSSES["non-saturating"]
    assert loss.discriminator(zero, zero).mean().item() == pytest.approx(math.log(2), abs=ATOL)
    assert loss.generator(zero).mean().item() == pytest.approx(math.log(2), abs=ATOL)


@pytest.mark.parametrize(
    ("name", "slope"),
    [("non-saturating", lambda D: D - 1), ("saturating", lambda D: -D)],
)
def test_slope_of_the_generator_loss(name: str, slope, logits: tuple[torch.Tensor, torch.Tensor]) -> None:  # type: ignore[no-untyped-def]
    """d/dl −log σ(l) = σ(l) − 1 stays large where D rejects; d/dl log(1 − σ(l)) = −σ(l) vanishes there."""
    fake = logits[1].clone().requires_grad_()
    LOSSES[name].generator(fake).sum().backward()
    torch.testing.assert_close(fake.grad, slope(torch.sigmoid(fake.detach())), rtol=0, atol=ATOL)


def test_extreme_logits_stay_finite() -> None:
    far = torch.tensor([[-1e4], [1e4]])
    for loss in LOSSES.values():
        assert loss.discriminator(far, far).isfinite().all()
        assert loss.generator(far).isfinite().all()
