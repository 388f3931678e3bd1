"""What is looked at at the intervals: samples, walks, time."""

import copy
import itertools

import numpy as np
import pytest
import torch

from gan.config import Config
from gan.networks import NETWORKS
from gan.sample import slerp, walk
from gan.telemetry.performance import Stopwatch, resources
from gan.telemetry.samples import Samples

CPU = torch.device("cpu")


def test_health_looks_at_g_itself_and_leaves_it_as_it_was(config: Config) -> None:
    G = NETWORKS["dcgan"](config)[0].to(torch.float64)
    average = copy.deepcopy(G).eval()
    for parameter in average.parameters():
        parameter.data.zero_()
    before = copy.deepcopy(G.state_dict())
    pixels = np.random.default_rng(0).integers(0, 256, (20, 16, 16, 3), dtype=np.uint8)
    samples = Samples(config, G, average, pixels, CPU)
    values = samples.health()
    assert values["health/diversity"] > 0
    assert samples.health() == values, "from the same latents"
    assert G.training
    assert all(value.equal(before[name]) for name, value in G.state_dict().items())
    blind = Samples(config, average, G, pixels, CPU)
    assert blind.health()["health/diversity"] == 0
    assert not average.training


def test_a_walk_passes_its_stops_on_great_circles() -> None:
    stops = torch.from_numpy(np.random.default_rng(0).standard_normal((3, 2, 50)))
    path = walk(stops, 4)
    assert path.shape == (12, 2, 50)
    assert torch.allclose(path[::4], stops, rtol=1e-14)
    unit = torch.nn.functional.normalize(stops, dim=-1)
    half = walk(unit, 4)[2]
    middle = torch.nn.functional.normalize(unit[0] + unit[1], dim=-1)
    assert torch.allclose(half, middle, atol=1e-12)
    assert torch.allclose(walk(unit, 4).norm(dim=-1), torch.ones(12, 2, dtype=torch.float64))
    there = slerp(unit[0], unit[0], torch.tensor(0.3, dtype=torch.float64))
    assert torch.allclose(there, unit[0]), "no way to go"


def test_time_goes_to_the_phase_that_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = itertools.accumulate([1.0, 0.1, 0.2, 0.3, 0.4])
    monkeypatch.setattr("gan.telemetry.performance.time.perf_counter", lambda: next(clock))
    watch = Stopwatch(CPU)
    watch.lap("before the start")
    watch.start()
    for phase in ("data", "d", "data", "g"):
        watch.lap(phase)
    assert watch.read() == pytest.approx({"perf/data_ms": 400, "perf/d_ms": 200, "perf/g_ms": 400})
    watch.lap("after the end")
    assert watch.read() == {}


def test_memory_is_that_of_the_process() -> None:
    before = resources(CPU)["perf/memory_mib"]
    held = np.ones(2**24)
    after = resources(CPU)["perf/memory_mib"]
    assert after - before == pytest.approx(held.nbytes / 2**20, rel=0.2)
