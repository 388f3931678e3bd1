"""A look at a run before it is begun: how fast it would be here, and what its images are like."""

import math
import tempfile
from dataclasses import replace
from pathlib import Path
from time import perf_counter

import numpy as np

from gan.config import Config
from gan.data.pack import Pack
from gan.data.packing import Census, Decoder, quiet_pillow
from gan.data.sources import Source
from gan.processes import start_processes
from gan.run_folder import RunFolder
from gan.telemetry.grids import evenly
from gan.trainer import Trainer

FEW = 8
"""Images in the batch that the first, rough measurement is made with."""


def images_per_second(config: Config, seconds: float, cards: int = 1) -> tuple[float, int, int]:
    """(images/s, images in a batch, iterations) of real iterations on random images, measured for so many seconds. The
    batch is what one of so many cards has at a time, or a smaller one of which four iterations fit into that time."""
    most = max(2, config.batch_size // cards // config.accumulation)
    few = min(FEW, most)
    rough, _ = seconds_per_iteration(config, few, 0)
    rows = min(most, max(few, int(few * seconds / 4 / rough)))
    each, count = seconds_per_iteration(config, rows, seconds)
    return rows * config.objective.n_critic / each, rows, count


def seconds_per_iteration(config: Config, rows: int, at_least: float) -> tuple[float, int]:
    """How long an iteration with `rows` images takes, and how many were timed, after one that was not: as many as end
    within `at_least` seconds, and one more."""
    with tempfile.TemporaryDirectory() as scratch:
        shape = (rows, config.resolution, config.resolution, config.channels)
        images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        track, eval_ = replace(config.track, with_="none"), replace(config.eval, every=None)
        plain = replace(config, out=Path(scratch), batch_size=rows, accumulation=1, init_from=None, resume="auto",
                        track=track, eval=eval_)  # fmt: skip
        pack = Pack(Path(scratch), images, {"sha256": ""})
        trainer = Trainer(plain, start_processes(plain), RunFolder(Path(scratch)), pack)
        count, began, now = -1, math.inf, 0.0
        while count < 1 or now - began < at_least:
            float(trainer.iterate(count + 1)["loss/g"])  # waits for the device
            count, now = count + 1, perf_counter()
            began = now if count == 0 else began
        return (now - began) / count, count


def look_at(source: Source, config: Config, most: int) -> Census:
    """At most `most` images, evenly spread, decoded in the way that packing does."""
    census = Census()
    with tempfile.NamedTemporaryFile() as scratch, quiet_pillow():
        decoder = Decoder(source, config, Path(scratch.name))
        for number in evenly(len(source), most).tolist():
            census.add(decoder(range(number, number + 1)))
    return census
