"""How fast a run would be, by a few iterations."""

import dataclasses
import itertools

import pytest

from gan.config import Config
from gan.estimate import images_per_second


def test_speed_is_that_of_the_time_that_passes(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock that goes on 1/16 s at each look: 8 images, then those of which four batches fit into half a second,
    16 in 1/16 s."""
    times = iter(itertools.count(0, 1 / 16))
    monkeypatch.setattr("gan.estimate.perf_counter", lambda: next(times))
    large = dataclasses.replace(config, batch_size=64)
    assert images_per_second(large, 0.5) == (256, 16, 8)
