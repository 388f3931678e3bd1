"""The two updates: for each, the one forward pass whose backward belongs to it."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn

from gan.config import ObjectiveConfig
from gan.networks import Images
from gan.networks.dcgan import Discriminator
from gan.objectives import LOSSES, PENALTIES, Loss
from gan.telemetry.health import separation

Statistics = dict[str, Tensor]


class CriticStep(nn.Module):
    """D and its whole loss as one module, so that wrapping the step (for DDP, for autocast) wraps everything."""

    def __init__(self, D: Discriminator, objective: ObjectiveConfig):
        super().__init__()
        self.D = D
        self.loss, self.penalty = LOSSES[objective.loss], PENALTIES[objective.penalty]
        self.weight = objective.penalty_weight
        self.factor = 0.5 if (self.loss.halved if objective.halve_d is None else objective.halve_d) else 1

    @property
    def undecided(self) -> float:
        """What loss/d is where D can tell nothing; 0 where the loss has no such value of its own."""
        logit = torch.tensor(self.loss.boundary or 0.0)
        return self.factor * float(self.loss.discriminator(logit, logit))

    @property
    def uniforms(self) -> int:
        """Uniform draws that one sample takes: for the penalty's mixture and the dropout of either pass."""
        return (self.penalty is not None) + 2 * self.D.uniforms

    def forward(self, real: Images, fake: Images, u: Tensor) -> tuple[Tensor, Statistics]:
        """Scalar loss and detached 0-d statistics; scores are mean probabilities D(x) and D(G(z)) in [0, 1], or mean
        logits where the loss knows no probabilities.

        `u`: uniform draws (N, uniforms). No gradient goes on to whoever made the fakes.
        """
        fake = [image.detach() for image in fake]
        mix, for_real, for_fake = u.split([int(self.penalty is not None), self.D.uniforms, self.D.uniforms], 1)
        real_logits, fake_logits = in_float32(self.D(real, for_real)), in_float32(self.D(fake, for_fake))
        loss = self.factor * self.loss.discriminator(real_logits, fake_logits).mean()
        statistics = {
            "loss/d": loss.detach(),
            "score/real": self.loss.score(real_logits.detach()).mean(),
            "score/fake": self.loss.score(fake_logits.detach()).mean(),
            **separation(real_logits, fake_logits, self.loss.boundary),
        }
        if self.penalty is not None:
            with torch.autocast(u.device.type, enabled=False):  # in mixed precision, the penalty stays in float32
                # D.forward is D as it is: what torch.compile has made of it knows no second derivative
                D = partial(self.D.forward, u=for_real)
                penalty = self.penalty(D, real, fake, mix.squeeze(1)).mean()
            loss = loss + self.weight * penalty
            statistics["loss/penalty"] = penalty.detach()
        return loss, statistics


def generator_loss(D: Discriminator, fake: Images, real: Images | None, u: Tensor, loss: Loss) -> Tensor:
    """G's scalar loss through D; `u` are draws (N, D.uniforms) for its dropout, `real` what a relative loss looks at.

    Call it, and its backward, inside `frozen(D)`.
    """
    real_logits = None if real is None else in_float32(D(real, u))
    return loss.generator(in_float32(D(fake, u)), real_logits).mean()


def in_float32(logits: Tensor) -> Tensor:
    """Logits in at least float32, so that mixed precision never reaches the loss; float64 stays as it is."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def mean_of(parts: list[Statistics]) -> Statistics:
    """Statistics of a batch from those of its equally large parts."""
    if len(parts) == 1:
        return parts[0]
    return {name: torch.stack([part[name] for part in parts]).mean() for name in parts[0]}


@torch.no_grad()
def clip_weights(D: nn.Module, bound: float) -> None:
    """Every parameter into [−bound, bound]: Arjovsky et al. 2017, https://arxiv.org/abs/1701.07875, algorithm 1."""
    parameters: list[Tensor] = [parameter for parameter in D.parameters() if parameter.requires_grad]
    torch._foreach_clamp_max_(parameters, bound)
    torch._foreach_clamp_min_(parameters, -bound)


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """No gradients for the parameters of `module` inside; each parameter's own flag is restored afterwards."""
    trainable = [parameter for parameter in module.parameters() if parameter.requires_grad]
    for parameter in trainable:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trainable:
            parameter.requires_grad_(True)
