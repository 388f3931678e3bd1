"""What the two players minimise. To add a loss: write it here and give it a name in LOSSES; a penalty: in PENALTIES.

Both players see logits, D before its sigmoid: D(x) = sigmoid(logit). A critic's scores are logits too. Each loss
returns one term per logit, so the same formula serves any reduction.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import relu, softplus

from gan.networks import Images

Critic = Callable[[Images], Tensor]


@dataclass(frozen=True)
class Loss:
    """A pair of objectives, each returning terms of the logits' shape.

    `discriminator(real_logits, fake_logits)` adds the term of a real image and that of a fake; with `halved` and unless
    the run says otherwise, half of the sum is taken: (Σ real terms + Σ fake terms) / 2N, as Mao et al. and others do.
    `generator(fake_logits, real_logits)` looks at the real ones only where `relative`. `score` turns logits into what
    the log shows. Above `boundary` D takes an image for real; None where only differences between logits mean anything.
    """

    discriminator: Callable[[Tensor, Tensor], Tensor]
    generator: Callable[[Tensor, Tensor | None], Tensor]
    halved: bool = False
    relative: bool = False
    score: Callable[[Tensor], Tensor] = torch.sigmoid
    boundary: float | None = 0


def cross_entropy(real: Tensor, fake: Tensor) -> Tensor:
    """−log D(x) − log(1 − D(G(z))): the negative of Goodfellow et al. 2014, https://arxiv.org/abs/1406.2661, eq. 1."""
    return softplus(-real) + softplus(fake)


def non_saturating(fake: Tensor, real: Tensor | None) -> Tensor:
    """−log D(G(z)): Goodfellow et al. 2014, section 3, the form with strong early gradients."""
    return softplus(-fake)


def saturating(fake: Tensor, real: Tensor | None) -> Tensor:
    """log(1 − D(G(z))): Goodfellow et al. 2014, eq. 1; its gradient vanishes once D rejects the fakes."""
    return -softplus(fake)


def least_squares_d(real: Tensor, fake: Tensor) -> Tensor:
    """(D(x) − 1)² + D(G(z))², halved: Mao et al. 2017, https://arxiv.org/abs/1611.04076, eq. 9."""
    return (real - 1).square() + fake.square()


def least_squares_g(fake: Tensor, real: Tensor | None) -> Tensor:
    """½ (D(G(z)) − 1)²: Mao et al. 2017, eq. 9."""
    return 0.5 * (fake - 1).square()


def wasserstein_d(real: Tensor, fake: Tensor) -> Tensor:
    """D(G(z)) − D(x): the negative of Arjovsky et al. 2017, https://arxiv.org/abs/1701.07875, eq. 3."""
    return fake - real


def wasserstein_g(fake: Tensor, real: Tensor | None) -> Tensor:
    """−D(G(z)): Arjovsky et al. 2017, algorithm 1."""
    return -fake


def hinge_d(real: Tensor, fake: Tensor) -> Tensor:
    """max(0, 1 − D(x)) + max(0, 1 + D(G(z))): Lim & Ye 2017, https://arxiv.org/abs/1705.02894; Miyato et al. 2018,
    https://arxiv.org/abs/1802.05957, eq. 16. G minimises −D(G(z)), eq. 17."""
    return relu(1 - real) + relu(1 + fake)


def relativistic_d(real: Tensor, fake: Tensor) -> Tensor:
    """−log σ(D(x) − D(G(z))): Jolicoeur-Martineau 2019, https://arxiv.org/abs/1807.00734, RSGAN."""
    return softplus(fake - real)


def relativistic_g(fake: Tensor, real: Tensor | None) -> Tensor:
    """−log σ(D(G(z)) − D(x)): Jolicoeur-Martineau 2019, RSGAN."""
    assert real is not None
    return softplus(real - fake)


def itself(logits: Tensor) -> Tensor:
    """The score of losses that know no probabilities."""
    return logits


LOSSES = {
    "non-saturating": Loss(cross_entropy, non_saturating, halved=True),
    "saturating": Loss(cross_entropy, saturating, halved=True),
    "least-squares": Loss(least_squares_d, least_squares_g, halved=True, score=itself, boundary=0.5),
    "wasserstein": Loss(wasserstein_d, wasserstein_g, score=itself, boundary=None),
    "hinge": Loss(hinge_d, wasserstein_g, score=itself),
    "relativistic": Loss(relativistic_d, relativistic_g, relative=True, score=itself, boundary=None),
}
"""At the optimum, D(x) = D(G(z)) = 1/2, both losses of "non-saturating" are log 2."""


def slope_squares(D: Critic, images: Images) -> Tensor:
    """|∇D|² (N,): of the gradient of each sample's mean score by all its pixels, at all scales together."""
    images = [image.detach().requires_grad_() for image in images]
    score = D(images).mean(1).sum()  # samples do not see each other, so one pass gives every sample's gradient
    slopes = torch.autograd.grad(score, images, create_graph=True)
    return torch.stack([slope.flatten(1).square().sum(1) for slope in slopes]).sum(0)


def slope_norms(D: Critic, images: Images) -> Tensor:
    """|∇D| (N,). The root has no derivative at 0, hence the bound."""
    return slope_squares(D, images).clamp_min(1e-24).sqrt()


def between(real: Images, fake: Images, mix: Tensor) -> Images:
    """ε x + (1 − ε) G(z), `mix` = ε (N,): Gulrajani et al. 2017, algorithm 1. All scales of a sample share its ε."""
    return [torch.lerp(y, x, mix[:, None, None, None]) for x, y in zip(real, fake, strict=True)]


def gradient_penalty(D: Critic, real: Images, fake: Images, mix: Tensor) -> Tensor:
    """(|∇D(x̂)| − 1)²: Gulrajani et al. 2017, https://arxiv.org/abs/1704.00028, eq. 3, where its weight is 10."""
    return (slope_norms(D, between(real, fake, mix)) - 1).square()


def one_sided_gradient_penalty(D: Critic, real: Images, fake: Images, mix: Tensor) -> Tensor:
    """max(0, |∇D(x̂)| − 1)²: Petzka et al. 2018, https://arxiv.org/abs/1709.08894, WGAN-LP."""
    return relu(slope_norms(D, between(real, fake, mix)) - 1).square()


def r1(D: Critic, real: Images, fake: Images, mix: Tensor) -> Tensor:
    """½ |∇D(x)|²: Mescheder et al. 2018, https://arxiv.org/abs/1801.04406, eq. 9, where its weight is called γ."""
    return 0.5 * slope_squares(D, real)


def r2(D: Critic, real: Images, fake: Images, mix: Tensor) -> Tensor:
    """½ |∇D(G(z))|²: Mescheder et al. 2018, eq. 10."""
    return 0.5 * slope_squares(D, fake)


PENALTIES: dict[str, Callable[[Critic, Images, Images, Tensor], Tensor] | None] = {
    "none": None,
    "gp": gradient_penalty,
    "gp-one-sided": one_sided_gradient_penalty,
    "r1": r1,
    "r2": r2,
    "r1-r2": lambda D, real, fake, mix: r1(D, real, fake, mix) + r2(D, real, fake, mix),
}
"""By name: (D, real images, fakes, ε) → a term (N,) per sample, added to D's loss with `--objective.penalty-weight`."""
