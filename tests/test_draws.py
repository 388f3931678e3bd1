from dataclasses import replace

import pytest
import torch

from gan.config import Config
from gan.draws import Draws
from gan.randomness import latents, uniform

CPU = torch.device("cpu")


@pytest.mark.parametrize("accumulation", [1, 3])
@pytest.mark.parametrize("processes", [1, 2, 4])
def test_the_processes_draw_what_one_would(processes: int, accumulation: int) -> None:
    config = replace(Config(), batch_size=24, accumulation=accumulation, seed=7)
    share = 24 // accumulation // processes
    every = [Draws(config, slice(rank * share, (rank + 1) * share), CPU, torch.float64) for rank in range(processes)]
    parts = [torch.cat(rows) for rows in zip(*(draws.latents("latents", 5) for draws in every), strict=True)]
    assert torch.cat(parts).equal(latents(7, "latents", 5, 24, 100))
    together = [draws.uniform("critic", 5, part, 2, 3) for part in range(accumulation) for draws in every]
    assert torch.cat(together).equal(uniform(7, "critic", 5, 24, 2, 3))
    assert every[-1].uniform("critic", 5, 0, 0).shape == (share, 0)


def test_every_precision_rounds_the_same_draws() -> None:
    single, double = (Draws(Config(), slice(0, 128), CPU, dtype) for dtype in (torch.float32, torch.float64))
    assert single.latents("latents", 1)[0].equal(double.latents("latents", 1)[0].float())
