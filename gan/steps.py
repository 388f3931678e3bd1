"""The two updates: for each, the one forward pass whose backward belongs to it."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from gan.networks import Images
from gan.objectives import Loss

Statistics = dict[str, Tensor]


class CriticStep(nn.Module):
    """D and its whole loss as one module, so that wrapping the step (for DDP, for autocast) wraps everything."""

    def __init__(self, D: nn.Module, loss: Loss):
        super().__init__()
        self.D = D
        self.loss = loss

    def forward(self, real: Images, fake: Images) -> tuple[Tensor, Statistics]:
        """Scalar loss and detached 0-d statistics; scores are mean probabilities D(x) and D(G(z)) in [0, 1].

        No gradient goes on to whoever made the fakes.
        """
        real_logits = in_float32(self.D(real))
        fake_logits = in_float32(self.D([image.detach() for image in fake]))
        loss = self.loss.discriminator(real_logits, fake_logits).mean()
        return loss, {
            "loss/d": loss.detach(),
            "score/real": real_logits.detach().sigmoid().mean(),
            "score/fake": fake_logits.detach().sigmoid().mean(),
        }


def generator_loss(D: nn.Module, fake: Images, loss: Loss) -> Tensor:
    """G's scalar loss through D. Call it, and its backward, inside `frozen(D)`."""
    return loss.generator(in_float32(D(fake))).mean()


def in_float32(logits: Tensor) -> Tensor:
    """Logits in at least float32, so that mixed precision never reaches the loss; float64 stays as it is."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def mean_of(parts: list[Statistics]) -> Statistics:
    """Statistics of a batch from those of its equally large parts."""
    if len(parts) == 1:
        return parts[0]
    return {name: torch.stack([part[name] for part in parts]).mean() for name in parts[0]}


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
