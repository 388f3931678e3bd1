"""Means of the step's statistics, kept on the device until somebody wants to read them."""

import torch
from accelerate import Accelerator
from torch import Tensor


class RunningMeans:
    """Adding costs no synchronisation with the device; reading costs one, however many values there are."""

    def __init__(self) -> None:
        self.sums: dict[tuple[str, ...], Tensor] = {}
        """Names of statistics that came together → (2, names): sums of their values and how many there were."""

    def add(self, statistics: dict[str, Tensor]) -> None:
        """Statistics of one iteration: 0-d tensors, detached. One that is not finite does not count."""
        names, values = tuple(statistics), torch.stack([*statistics.values()])
        finite = values.isfinite()
        both = torch.stack([torch.where(finite, values, 0), finite.to(values.dtype)])
        self.sums[names] = self.sums[names] + both if names in self.sums else both

    def read(self, accelerator: Accelerator) -> dict[str, float]:
        """Means over the iterations since the last reading and over all processes; not a number where nothing was
        finite. A collective: call it on each, with the same statistics in the same order."""
        names = [name for group in self.sums for name in group]
        both = torch.cat([*self.sums.values()], 1)
        sums, counts = accelerator.reduce(both, "sum") if accelerator.num_processes > 1 else both
        self.sums = {}
        return dict(zip(names, (sums / counts).tolist(), strict=True))
