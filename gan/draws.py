"""What is drawn for an iteration: for the whole batch, whatever the number of processes; each takes its own rows."""

import torch
from torch import Tensor

from gan.config import Config
from gan.data.batches import to_device
from gan.randomness import latents, uniform


class Draws:
    """This process' share."""

    def __init__(self, config: Config, rows: slice, device: torch.device, dtype: torch.dtype):
        """`rows`: which of a part of the batch, as `--accumulation` divides it, are this process'."""
        self.config, self.rows, self.device, self.dtype = config, rows, device, dtype

    def latents(self, purpose: str, index: int) -> list[Tensor]:
        """z ~ N(0, 1): (rows, z_dim) for each part of the batch."""
        z = latents(self.config.seed, purpose, index, self.config.batch_size, self.config.model.z_dim)
        return [self.own(z, part) for part in range(self.config.accumulation)]

    def uniform(self, purpose: str, index: int, part: int, *shape: int) -> Tensor:
        """In [0, 1), for one part of the batch: (rows, *shape)."""
        if not all(shape):
            return torch.empty(self.rows.stop - self.rows.start, *shape, device=self.device)
        return self.own(uniform(self.config.seed, purpose, index, self.config.batch_size, *shape), part)

    def own(self, drawn: Tensor, part: int) -> Tensor:
        """This process' rows of one part of the whole batch, on its device."""
        return to_device(drawn.chunk(self.config.accumulation)[part][self.rows].to(self.dtype), self.device)
