"""What the two players minimise. To add a loss: write it here and give it a name in LOSSES.

Both players see logits, D before its sigmoid: D(x) = sigmoid(logit). Each function returns one term per logit, so
the same formula serves any reduction. At the optimum, D(x) = D(G(z)) = 1/2, both non-saturating losses are log 2.
"""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor
from torch.nn.functional import softplus


@dataclass(frozen=True)
class Loss:
    """A pair of objectives, each returning terms of the logits' shape.

    `discriminator(real_logits, fake_logits)` is averaged over real and fake together, i.e.
    (Σ real terms + Σ fake terms) / 2N; `generator(fake_logits)` is averaged over the fakes.
    """

    discriminator: Callable[[Tensor, Tensor], Tensor]
    generator: Callable[[Tensor], Tensor]


def binary_cross_entropy(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """½ [−log D(x) − log(1 − D(G(z)))]: half the negative of Goodfellow et al. 2014, https://arxiv.org/abs/1406.2661,
    eq. 1."""
    return 0.5 * (softplus(-real_logits) + softplus(fake_logits))


def non_saturating(fake_logits: Tensor) -> Tensor:
    """−log D(G(z)): Goodfellow et al. 2014, section 3, the form with strong early gradients."""
    return softplus(-fake_logits)


def saturating(fake_logits: Tensor) -> Tensor:
    """log(1 − D(G(z))): Goodfellow et al. 2014, eq. 1; its gradient vanishes once D rejects the fakes."""
    return -softplus(fake_logits)


LOSSES = {
    "non-saturating": Loss(binary_cross_entropy, non_saturating),
    "saturating": Loss(binary_cross_entropy, saturating),
}
