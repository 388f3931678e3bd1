"""What the averaged G gains by BatchNorm statistics of its own: python -m benchmarks.averages RUN

Each checkpoint of a run is measured twice, with those that training gathered for the raw G, and with its own.
"""

import statistics
import sys
from dataclasses import replace
from pathlib import Path

from accelerate import Accelerator

from gan import checkpoint, listing
from gan.data.pack import open_pack
from gan.evaluate import DEFAULT_METRICS, Evaluator, headlines
from gan.trained import load_generator, read_checkpoint, read_run


def gathered(found: checkpoint.Checkpoint) -> checkpoint.Checkpoint:
    """The average, with the statistics of the raw G."""
    theirs = {name: value for name, value in found.tensors["generator"].items() if "running" in name}
    return replace(found, tensors={"generator_ema": {**found.tensors["generator_ema"], **theirs}})


run = Path(sys.argv[1])
config = read_run(run)
evaluator = Evaluator(config, open_pack(config), Accelerator(), DEFAULT_METRICS)
gains: dict[str, list[float]] = {}
for path in reversed(listing.listed(run / "checkpoints")):
    found = read_checkpoint(run, path)
    columns = []
    for which in (gathered(found), found):
        values = evaluator(load_generator(config, which))
        columns.append({name: value for part in values.values() for name, value in headlines(part).items()})
    print(path.name, *(f"{name} {columns[0][name]:.4g} → {columns[1][name]:.4g}" for name in columns[0]), sep="  ")
    for name in columns[0]:
        gains.setdefault(name, []).append(columns[1][name] / columns[0][name])
for name, ratios in gains.items():
    print(f"{name}: × {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}, n = {len(ratios)})")
