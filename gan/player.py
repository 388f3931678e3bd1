"""A player of the game: one network, and what updates it."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler

from gan.processes import precision


class Player:
    """`module` is the bare network; `step` is what is called in training: the network, or a module that computes its
    loss, wrapped for mixed precision and DDP.

    Each player has a loss scaler of its own (Micikevicius et al. 2018, https://arxiv.org/abs/1710.03740, section 3.2):
    Accelerate shares one, but an overflow of one player must not rescale gradients that the other has accumulated.
    """

    def __init__(self, accelerator: Accelerator, module: nn.Module, step: nn.Module, optimizer: torch.optim.Optimizer,
                 scale: float = 1):  # fmt: skip
        self.accelerator, self.module, self.optimizer, self.scale = accelerator, module, optimizer, scale
        self.step = accelerator.prepare(step)
        self.scaler = GradScaler(accelerator.device.type, enabled=precision(accelerator) == "fp16")
        zero = torch.zeros((), dtype=torch.int64, device=accelerator.device)
        self.skipped, self.in_a_row, self.bad = zero, zero.clone(), zero.bool()
        """Updates skipped so far; those skipped since the last that was not; whether the last one was."""
        self.gradient_norm = zero.float()
        """Of the last update's gradients, as the optimizer sees them."""

    def part(self, number: int, parts: int) -> AbstractContextManager:
        """Around forward and backward of one part of the batch: gradients travel with the last part only."""
        return nullcontext() if number == parts - 1 else self.accelerator.no_sync(self.step)

    def backward(self, loss: Tensor) -> None:
        """`loss` is a mean over the batch; `scale` makes a sum of it. A loss that is not finite spoils every gradient,
        on all processes, so that each of them skips the update."""
        one_or_nan = torch.where(loss.detach().isfinite(), 1.0, float("nan"))
        self.scaler.scale(self.scale * one_or_nan * loss).backward()

    def set_learning_rate(self, rate: float) -> None:
        """For the next updates."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate

    def update(self) -> None:
        """One optimizer step, unless a gradient is not finite. Nothing is read from the device, except by PyTorch in
        fp16 for an optimizer that is not fused, such as RMSprop."""
        norms = torch.stack(torch._foreach_norm(self.gradients()))
        self.gradient_norm = norms.norm()
        if not self.scaler.is_enabled():
            self.bad = ~norms.sum().isfinite()
            self.step_unless_bad()
        else:
            scale = self.scaler.scale(torch.ones_like(self.skipped))  # the way to see the scale without waiting for it
            self.gradient_norm /= scale
            self.scaler.step(self.optimizer)
            self.scaler.update()
            self.bad = self.scaler.scale(torch.ones_like(self.skipped)) < scale
        self.skipped += self.bad
        self.in_a_row.add_(1).mul_(self.bad)
        self.optimizer.zero_grad()

    @torch.no_grad()
    def weight_norm(self) -> Tensor:
        """0-d: length of the vector of all parameters."""
        return torch.stack(torch._foreach_norm([*self.module.parameters()])).norm()

    def gradients(self) -> list[Tensor]:
        """Those there are: a frozen parameter has none."""
        return [parameter.grad for parameter in self.module.parameters() if parameter.grad is not None]

    @torch.no_grad()
    def step_unless_bad(self) -> None:
        """An optimizer step that leaves weights and optimizer as they are where `bad` is true, without asking it."""
        if getattr(self.optimizer, "_step_supports_amp_scaling", False):  # fused: the kernel itself looks at the flag
            self.optimizer.found_inf = self.bad.float()  # type: ignore[attr-defined]
            self.optimizer.step()
            return
        for gradient in self.gradients():
            gradient.copy_(torch.where(self.bad, 0, gradient))
        weights = [parameter for parameter in self.module.parameters() if parameter.grad is not None]
        kept = [value.clone() for value in (*weights, *self.memory())]
        self.optimizer.step()
        values = [*weights, *self.memory()]
        kept += [torch.zeros_like(value) for value in values[len(kept) :]]  # the first step makes them, of zeros
        keep_if(self.bad, values, kept)

    def memory(self) -> list[Tensor]:
        """What the optimizer keeps of the past: moments and counts of steps."""
        return [value for state in self.optimizer.state.values() for value in state.values()]

    def state(self) -> dict[str, Any]:
        """The loss scaler's state, if there is one, and the updates skipped. Reads the device."""
        return {**self.scaler.state_dict(), "skipped": int(self.skipped), "in_a_row": int(self.in_a_row)}

    def load_state(self, state: dict[str, Any]) -> None:
        """What `state` gave, of a run that may have had another precision."""
        self.skipped.fill_(state.pop("skipped", 0))
        self.in_a_row.fill_(state.pop("in_a_row", 0))
        if self.scaler.is_enabled() and state:  # a run that was not in fp16 has none
            self.scaler.load_state_dict(state)


@torch.no_grad()
def keep_if(bad: Tensor, values: list[Tensor], kept: list[Tensor]) -> None:
    """Where the 0-d boolean `bad` is true, put the kept values back."""
    for value, former in zip(values, kept, strict=True):
        value.copy_(torch.where(bad, former, value))
