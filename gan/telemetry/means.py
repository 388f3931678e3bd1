"""Means of the step's statistics, kept on the device until somebody wants to read them."""

import torch
from accelerate import Accelerator
from torch import Tensor


class RunningMeans:
    """Adding costs no synchronisation with the device; reading costs one, however many values there are."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, Tensor] = {}

    def add(self, statistics: dict[str, Tensor]) -> None:
        """Statistics of one iteration: 0-d tensors, detached. One that is not finite does not count."""
        for name, value in statistics.items():
            finite = value.isfinite()
            amount, count = torch.where(finite, value, 0), finite.to(value.dtype)
            self.sums[name] = self.sums[name] + amount if name in self.sums else amount
            self.counts[name] = self.counts[name] + count if name in self.counts else count

    def read(self, accelerator: Accelerator) -> dict[str, float]:
        """Means over the iterations since the last reading and over all processes; not a number where nothing was
        finite. A collective: call it on each."""
        stacked = torch.stack([*self.sums.values(), *self.counts.values()])
        sums, counts = accelerator.reduce(stacked, "sum").chunk(2)
        names, self.sums, self.counts = list(self.sums), {}, {}
        return dict(zip(names, (sums / counts).tolist(), strict=True))
