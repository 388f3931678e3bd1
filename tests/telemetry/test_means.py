"""Means of what happens between two log entries."""

import numpy as np
import torch
from accelerate import Accelerator

from gan.telemetry.means import RunningMeans


def test_means_are_means_of_the_interval_alone() -> None:
    means, accelerator = RunningMeans(), Accelerator(cpu=True)
    values = torch.tensor([1.0, 2.0, 6.0])
    for value in values:
        means.add({"a": value, "b": -value})
    assert means.read(accelerator) == {"a": 3.0, "b": -3.0}
    assert values.tolist() == [1.0, 2.0, 6.0]
    means.add({"a": torch.tensor(10.0)})
    assert means.read(accelerator) == {"a": 10.0}


def test_what_is_not_finite_does_not_count() -> None:
    means, accelerator = RunningMeans(), Accelerator(cpu=True)
    for value in (1.0, float("nan"), float("inf"), 3.0):
        means.add({"a": torch.tensor(value), "b": torch.tensor(float("nan"))})
    read = means.read(accelerator)
    assert read["a"] == 2.0
    assert np.isnan(read["b"])
