"""Every loss and penalty against closed forms, and their derivatives against finite differences."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits as reference

from gan.config import Config, ModelConfig, ObjectiveConfig
from gan.networks import NETWORKS
from gan.objectives import LOSSES, PENALTIES
from gan.steps import CriticStep, generator_loss

ATOL = 1e-14  # float64: a few units in the last place of values up to about 10


@pytest.fixture
def logits() -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(0)
    real, fake = torch.randn(2, 64, 1, generator=draw, dtype=torch.float64) * 4
    return real, fake


def log_sigmoid(x: Tensor) -> Tensor:
    return -(1 + (-x).exp()).log()


CLOSED: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], Callable[[Tensor, Tensor], Tensor]]] = {
    "non-saturating": (lambda r, f: -log_sigmoid(r) - log_sigmoid(-f), lambda f, r: -log_sigmoid(f)),
    "saturating": (lambda r, f: -log_sigmoid(r) - log_sigmoid(-f), lambda f, r: (1 - torch.sigmoid(f)).log()),
    "least-squares": (lambda r, f: (r - 1) ** 2 + f**2, lambda f, r: (f - 1) ** 2 / 2),
    "wasserstein": (lambda r, f: f - r, lambda f, r: -f),
    "hinge": (lambda r, f: (1 - r).clamp(min=0) + (1 + f).clamp(min=0), lambda f, r: -f),
    "relativistic": (lambda r, f: -log_sigmoid(r - f), lambda f, r: -log_sigmoid(f - r)),
}


@pytest.mark.parametrize("name", LOSSES)
def test_losses_have_their_closed_forms(name: str, logits: tuple[Tensor, Tensor]) -> None:
    real, fake = logits
    d, g = CLOSED[name]
    torch.testing.assert_close(LOSSES[name].discriminator(real, fake), d(real, fake), rtol=0, atol=1e-11)
    torch.testing.assert_close(LOSSES[name].generator(fake, real), g(fake, real), rtol=0, atol=1e-11)
    assert LOSSES[name].relative is (name == "relativistic")
    assert LOSSES[name].halved is (name in ("non-saturating", "saturating", "least-squares"))


def test_discriminator_is_binary_cross_entropy(logits: tuple[Tensor, Tensor]) -> None:
    real, fake = logits
    both = torch.cat([real, fake])
    labels = torch.cat([torch.ones_like(real), torch.zeros_like(fake)])
    loss = LOSSES["non-saturating"].discriminator(real, fake).mean() / 2
    torch.testing.assert_close(loss, reference(both, labels), rtol=0, atol=ATOL)


def test_both_losses_are_log_2_at_the_optimum() -> None:
    zero = torch.zeros(8, 1, dtype=torch.float64)
    loss = LOSSES["non-saturating"]
    assert loss.discriminator(zero, zero).mean().item() / 2 == pytest.approx(math.log(2), abs=ATOL)
    assert loss.generator(zero, None).mean().item() == pytest.approx(math.log(2), abs=ATOL)


@pytest.mark.parametrize(
    ("name", "slope"),
    [("non-saturating", lambda D: D - 1), ("saturating", lambda D: -D)],
)
def test_slope_of_the_generator_loss(
    name: str, slope: Callable[[Tensor], Tensor], logits: tuple[Tensor, Tensor]
) -> None:
    """d/dl −log σ(l) = σ(l) − 1 stays large where D rejects; d/dl log(1 − σ(l)) = −σ(l) vanishes there."""
    fake = logits[1].clone().requires_grad_()
    LOSSES[name].generator(fake, None).sum().backward()
    torch.testing.assert_close(fake.grad, slope(torch.sigmoid(fake.detach())), rtol=0, atol=ATOL)


@pytest.mark.parametrize("name", LOSSES)
def test_scores_are_probabilities_where_the_loss_knows_them(name: str, logits: tuple[Tensor, Tensor]) -> None:
    _, D, real, fake = real_critic()
    _, statistics = CriticStep(D, ObjectiveConfig(loss=name))(real, fake, torch.empty(3, 0))  # type: ignore[arg-type]
    known = name in ("non-saturating", "saturating")  # of a relative loss only differences mean anything
    expected = torch.sigmoid(D(real)).mean() if known else D(real).mean()
    torch.testing.assert_close(statistics["score/real"], expected.detach(), rtol=0, atol=1e-14)


def test_extreme_logits_stay_finite() -> None:
    far = torch.tensor([[-1e4], [1e4]])
    for loss in LOSSES.values():
        assert loss.discriminator(far, far).isfinite().all()
        assert loss.generator(far, far).isfinite().all()


class Bowl(nn.Module):
    """D(x) = Σ over scales ½ a |x|², whose slope is a x; two logits per sample with that mean."""

    def __init__(self, a: float):
        super().__init__()
        self.a = nn.Parameter(torch.tensor(a, dtype=torch.float64))

    def forward(self, images: list[Tensor]) -> Tensor:
        score = torch.stack([0.5 * self.a * image.square().flatten(1).sum(1) for image in images]).sum(0)
        return torch.stack([score - 1, score + 1], 1)


def norm(images: list[Tensor]) -> Tensor:
    return torch.cat([image.flatten(1) for image in images], 1).norm(dim=1)


@pytest.mark.parametrize("scales", [1, 3])
@pytest.mark.parametrize("name", [name for name in PENALTIES if name != "none"])
def test_penalties_have_their_closed_forms(name: str, scales: int) -> None:
    """And so has their derivative by D's parameter, for which D is differentiated twice."""
    draw = torch.Generator().manual_seed(1)
    real, fake = (
        [torch.randn(5, 2, 8 >> scale, 8 >> scale, generator=draw, dtype=torch.float64) for scale in range(scales)]
        for _ in range(2)
    )
    mix = torch.rand(5, generator=draw, dtype=torch.float64)
    between = [
        mix[:, None, None, None] * x + (1 - mix[:, None, None, None]) * y for x, y in zip(real, fake, strict=True)
    ]
    a = 0.13  # the mixtures' slopes then lie on both sides of 1
    if scales == 1:
        assert (a * norm(between)).min() < 1 < (a * norm(between)).max()
    closed: dict[str, Callable[[Tensor], Tensor]] = {
        "gp": lambda a: (a * norm(between) - 1) ** 2,
        "gp-one-sided": lambda a: (a * norm(between) - 1).clamp(min=0) ** 2,
        "r1": lambda a: (a * norm(real)) ** 2 / 2,
        "r2": lambda a: (a * norm(fake)) ** 2 / 2,
        "r1-r2": lambda a: ((a * norm(real)) ** 2 + (a * norm(fake)) ** 2) / 2,
    }
    D, penalty = Bowl(a), PENALTIES[name]
    assert penalty is not None
    found = penalty(D, real, fake, mix)
    expected_a = torch.tensor(a, dtype=torch.float64, requires_grad=True)
    expected = closed[name](expected_a)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    found.sum().backward()
    expected.sum().backward()
    torch.testing.assert_close(D.a.grad, expected_a.grad, rtol=1e-12, atol=1e-12)


def test_a_flat_critic_has_a_finite_penalty() -> None:
    flat = [torch.zeros(2, 1, 4, 4, dtype=torch.float64)]
    for penalty in PENALTIES.values():
        if penalty is not None:
            D = Bowl(0.5)
            penalty(D, flat, flat, torch.zeros(2, dtype=torch.float64)).sum().backward()
            assert D.a.grad is not None
            assert D.a.grad.isfinite()


def real_critic(**settings: object) -> tuple[Config, nn.Module, list[Tensor], list[Tensor]]:
    model = ModelConfig(width=4, norm_d="layer", **settings)  # type: ignore[arg-type]
    config = Config(resolution=32, model=model)
    torch.manual_seed(0)
    D = NETWORKS[model.network](config)[1].double()
    scales = len(D.lifts) + 1
    real, fake = ([torch.randn(3, 3, 32 >> s, 32 >> s, dtype=torch.float64) for s in range(scales)] for _ in range(2))
    return config, D, real, fake


@pytest.mark.parametrize("network", ["dcgan", "msg"])
@pytest.mark.parametrize("penalty", [name for name in PENALTIES if name != "none"])
def test_derivatives_of_the_whole_loss_by_finite_differences(network: str, penalty: str) -> None:
    _, D, real, fake = real_critic(network=network)
    objective = ObjectiveConfig(loss="wasserstein", penalty=penalty, penalty_weight=3)
    step, u = CriticStep(D, objective), torch.rand(3, 1, dtype=torch.float64)  # type: ignore[arg-type]
    loss, statistics = step(real, fake, u)
    loss.backward()
    assert statistics["loss/d"] + 3 * statistics["loss/penalty"] == pytest.approx(loss.item(), abs=1e-12)
    for name, parameter in D.named_parameters():
        direction = torch.randn_like(parameter)
        with torch.no_grad():
            values = []
            for sign in (1, -1):
                parameter.add_(direction, alpha=sign * 1e-6)
                with torch.enable_grad():
                    values.append(step(real, fake, u)[0].item())
                parameter.sub_(direction, alpha=sign * 1e-6)
        assert parameter.grad is not None
        slope = (parameter.grad * direction).sum().item()
        # a central difference is off by rounding / 1e-6 and by the few LeakyReLUs that change their side in between
        assert slope == pytest.approx((values[0] - values[1]) / 2e-6, rel=2e-3, abs=1e-6), name


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("penalty", PENALTIES)
def test_every_pair_teaches_every_layer_of_both_msg_players(loss: str, penalty: str) -> None:
    config, D, real, _ = real_critic(network="msg")
    G = NETWORKS["msg"](config)[0].double()
    fake = G(torch.randn(3, 100, dtype=torch.float64))
    step = CriticStep(D, ObjectiveConfig(loss=loss, penalty=penalty))  # type: ignore[arg-type]
    step(real, fake, torch.rand(3, step.uniforms, dtype=torch.float64))[0].backward()
    assert all(parameter.grad is None for parameter in G.parameters())
    generator_loss(D, fake, real, torch.empty(3, 0), LOSSES[loss]).backward()  # type: ignore[arg-type]
    for parameter in (*D.parameters(), *G.parameters()):
        assert parameter.grad is not None
        assert parameter.grad.isfinite().all()
        assert parameter.grad.abs().max() > 0


@pytest.mark.parametrize("penalty", ["gp", "r1"])
def test_penalties_stay_in_float32_under_autocast(penalty: str) -> None:
    _, D, real, fake = real_critic()
    D, real, fake = D.float(), [x.float() for x in real], [x.float() for x in fake]
    seen: list[torch.dtype] = []
    D.head.register_forward_hook(lambda _m, _i, out: seen.append(out.dtype))  # type: ignore[union-attr]
    step = CriticStep(D, ObjectiveConfig(penalty=penalty))  # type: ignore[arg-type]
    assert step.uniforms == 1
    with torch.autocast("cpu", torch.bfloat16):
        loss, _ = step(real, fake, torch.rand(3, 1))
    assert seen == [torch.bfloat16, torch.bfloat16, torch.float32]
    assert loss.dtype == torch.float32


def test_halving_is_a_setting() -> None:
    _, D, real, fake = real_critic()
    nothing = torch.empty(3, 0, dtype=torch.float64)
    steps = [CriticStep(D, ObjectiveConfig(halve_d=half)) for half in (None, True, False)]  # type: ignore[arg-type]
    standard, half, whole = (step(real, fake, nothing)[0] for step in steps)
    assert standard == half == whole / 2


def test_a_relative_loss_looks_at_the_real_images() -> None:
    _, D, real, fake = real_critic()
    nothing = torch.empty(3, 0, dtype=torch.float64)
    loss = generator_loss(D, fake, real, nothing, LOSSES["relativistic"])  # type: ignore[arg-type]
    with torch.no_grad():
        expected = -log_sigmoid(D(fake) - D(real)).mean()
    assert loss.item() == pytest.approx(expected.item(), abs=1e-12)


def test_every_pass_of_d_has_its_own_draws_for_dropout() -> None:
    _, D, real, fake = real_critic(dropout=0.4)
    step = CriticStep(D, ObjectiveConfig(loss="hinge", penalty="r1", penalty_weight=2))  # type: ignore[arg-type]
    u = torch.rand(3, step.uniforms, dtype=torch.float64)
    for_real, for_fake = u[:, 1:57], u[:, 57:]
    expected = LOSSES["hinge"].discriminator(D(real, for_real), D(fake, for_fake)).mean()
    penalty = PENALTIES["r1"]
    assert penalty is not None
    expected = expected + 2 * penalty(lambda images: D(images, for_real), real, fake, u[:, 0]).mean()
    torch.testing.assert_close(step(real, fake, u)[0], expected, rtol=0, atol=1e-12)
    loss = generator_loss(D, fake, None, for_fake, LOSSES["hinge"])  # type: ignore[arg-type]
    torch.testing.assert_close(loss, -D(fake, for_fake).mean(), rtol=0, atol=1e-14)
    assert abs(loss.item() + D(fake).mean().item()) > 1e-6


def test_dropout_drops_the_channels_its_draws_say() -> None:
    _, D, real, _ = real_critic(dropout=0.25)
    assert D.uniforms == 8 + 16 + 32  # type: ignore[comparison-overlap]
    u = torch.rand(3, 56, dtype=torch.float64)
    outputs: list[Tensor] = []
    inputs: list[Tensor] = []
    D.from_image.register_forward_hook(lambda _m, _i, out: outputs.append(out.clone()))  # type: ignore[union-attr]
    D.blocks["8"].register_forward_hook(lambda _m, given, _o: inputs.append(given[0].clone()))  # type: ignore[index,union-attr]
    D(real, u)
    kept = (u[:, :8] >= 0.25).double()[:, :, None, None]
    assert 0 < kept.mean() < 1
    torch.testing.assert_close(inputs[0], outputs[0] * kept / 0.75, rtol=1e-14, atol=0)
    D(real)
    assert inputs[1].equal(outputs[1])
