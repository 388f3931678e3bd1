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
        self.skipped = torch.zeros((), dtype=torch.int64, device=accelerator.device)

    def part(self, number: int, parts: int) -> AbstractContextManager:
        """Around forward and backward of one part of the batch: gradients travel with the last part only."""
        return nullcontext() if number == parts - 1 else self.accelerator.no_sync(self.step)

    def backward(self, loss: Tensor) -> None:
        """`loss` is a mean over the batch; `scale` makes a sum of it."""
        self.scaler.scale(self.scale * loss).backward()

    def set_learning_rate(self, rate: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = rate

    def update(self) -> None:
        """One optimizer step, unless fp16 gradients have overflowed. Nothing is read from the device, except by PyTorch
        for RMSprop in fp16."""
        if not self.scaler.is_enabled():
            self.optimizer.step()
        else:
            scale = self.scaler.scale(torch.ones_like(self.skipped))  # the way to see the scale without waiting for it
            self.scaler.step(self.optimizer)
            self.scaler.update()
            self.skipped += self.scaler.scale(torch.ones_like(self.skipped)) < scale
        self.optimizer.zero_grad()

    def state(self) -> dict[str, Any]:
        """The loss scaler's state and the updates skipped so far; nothing without fp16. Reads the device."""
        if not self.scaler.is_enabled():
            return {}
        return {**self.scaler.state_dict(), "skipped": int(self.skipped)}

    def load_state(self, state: dict[str, Any]) -> None:
        if self.scaler.is_enabled():
            self.skipped.fill_(state.pop("skipped"))
            self.scaler.load_state_dict(state)
