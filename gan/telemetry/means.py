"""Means of the step's statistics, kept on the device until somebody wants to read them."""

import torch
from accelerate import Accelerator
from torch import Tensor


class RunningMeans:
    """Adding costs no synchronisation with the device; reading costs one, however many values there are."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.count = 0

    def add(self, statistics: dict[str, Tensor]) -> None:
        """Statistics of one iteration: 0-d tensors, detached."""
        for name, value in statistics.items():
            self.sums[name] = self.sums[name] + value if name in self.sums else value.clone()
        self.count += 1

    def read(self, accelerator: Accelerator) -> dict[str, float]:
        """Means over the iterations since the last reading and over all processes. A collective: call it on each."""
        stacked = torch.stack(list(self.sums.values())) / self.count
        means = accelerator.reduce(stacked, "mean").tolist()
        names, self.sums, self.count = list(self.sums), {}, 0
        return dict(zip(names, means, strict=True))
