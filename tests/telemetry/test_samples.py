"""What is looked at at the intervals: samples, walks, time."""

import copy

import numpy as np
import torch

from gan.config import Config
from gan.networks import NETWORKS
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
