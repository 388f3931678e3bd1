from collections.abc import Callable

import pytest
import torch
from torch import nn

from gan.config import OptimizerConfig
from gan.optimizers import OPTIMIZERS, learning_rate

OPTIONS = OptimizerConfig(lr=0.1, beta1=0.3, beta2=0.8, eps=1e-3, weight_decay=0.05)
GRADIENTS = (2.0, -1.0, 0.5)


def adam(decay: float) -> float:
    w, m, v = 1.0, 0.0, 0.0
    for t, g in enumerate(GRADIENTS, 1):
        w -= 0.1 * decay * w
        m, v = 0.3 * m + 0.7 * g, 0.8 * v + 0.2 * g * g
        w -= 0.1 * (m / (1 - 0.3**t)) / ((v / (1 - 0.8**t)) ** 0.5 + 1e-3)
    return w


def rmsprop() -> float:
    w, v = 1.0, 0.0
    for g in GRADIENTS:
        v = 0.8 * v + 0.2 * g * g
        w -= 0.1 * g / (v**0.5 + 1e-3)
    return w


@pytest.mark.parametrize(
    ("name", "expected"), [("adam", lambda: adam(0)), ("adamw", lambda: adam(0.05)), ("rmsprop", rmsprop)]
)
def test_optimizers_follow_their_formulas(name: str, expected: Callable[[], float]) -> None:
    weight = nn.Parameter(torch.tensor([1.0], dtype=torch.float64))
    optimizer = OPTIMIZERS[name]([weight], OPTIONS, True)
    for gradient in GRADIENTS:
        weight.grad = torch.tensor([gradient], dtype=torch.float64)
        optimizer.step()
    assert weight.item() == pytest.approx(expected(), abs=1e-14)


def test_the_learning_rate_falls_linearly() -> None:
    options = OptimizerConfig(lr=0.4, decay_from=10, decay_to=20)
    assert [learning_rate(options, iteration) for iteration in (0, 10, 15, 20, 99)] == pytest.approx(
        [0.4, 0.4, 0.2, 0, 0]
    )
    assert learning_rate(OptimizerConfig(lr=0.4), 10**9) == 0.4


@pytest.mark.parametrize("name", ["adam", "adamw"])
@pytest.mark.parametrize(("on_gpu", "fused"), [(False, False), (True, False), (True, True)])
def test_without_one_kernel_a_gpu_has_a_few_not_one_for_every_weight(
    name: str, on_gpu: bool, fused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """foreach, which PyTorch does not choose by itself once it is told not to fuse."""
    monkeypatch.setattr("gan.optimizers.counts_on_device", lambda parameters: on_gpu)
    defaults = OPTIMIZERS[name]([nn.Parameter(torch.zeros(1))], OPTIONS, fused).defaults
    assert (defaults["fused"], defaults["foreach"]) == (fused, on_gpu and not fused)
