"""How often a run is called what it is: healthy runs, the saturating recipe, and a generator that has one image only.

    python -m benchmarks.verdicts [--data sprites FOLDER_OR_ZIP …] [--seeds 5]

Each case on each set and seed, at the size of the quickstart or below. A verdict is given from iteration 500 on.
"""

import itertools
import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import tyro
from torch import Tensor

from gan.config import Config, parse
from gan.networks import NETWORKS
from gan.networks.dcgan import Discriminator, Generator
from gan.run import train
from gan.telemetry.health import VERDICTS

CASES = {
    "healthy": "--recipe quickstart --iterations 1000",
    "saturating": "--recipe pokemon-saturating --resolution 16 --model.width 32 --batch-size 64 --iterations 700",
    "one mode": "--recipe quickstart --iterations 700",
}
NETWORKS_OF = {"one mode": "one-mode"}
"""Those that the command line does not know."""


class OneMode(Generator):
    """Draws one and the same image, which it may improve."""

    def forward(self, z: Tensor) -> list[Tensor]:
        return super().forward(0 * z + 1)


def one_mode(config: Config) -> tuple[Generator, Discriminator]:
    """A DCGAN with a generator that has collapsed by force."""
    G, D = NETWORKS["dcgan"](config)
    G.__class__ = OneMode
    return G, D


def log_of(case: str, words: list[str]) -> list[dict[str, Any]]:
    """The log of a run of this case, with further words of train.py."""
    NETWORKS["one-mode"] = one_mode
    with tempfile.TemporaryDirectory() as scratch:
        quiet = ["--track.with", "none", "--track.report", "False", "--sample-every", "10000"]
        config = parse([*CASES[case].split(), *words, *quiet, "--out", f"{scratch}/run"])
        model = replace(config.model, network=NETWORKS_OF.get(case, config.model.network))
        train(replace(config, model=model))
        return [json.loads(line) for line in Path(scratch, "run", "log.jsonl").read_text().splitlines()]


def summary(log: list[dict[str, Any]]) -> str:
    """What a run was called, and what it came to."""
    first = next((entry["iteration"] for entry in log if entry["verdict"] in VERDICTS), "–")
    last = log[-1]
    return (f"{last['verdict']} | {first} | {last['loss/d']:.4f} | {last['loss/g']:.4f} | "
            f"{last['health/diversity']:.2f} | {last['health/duplicates']:.2f}")  # fmt: skip


def main(data: tuple[str, ...] = ("sprites",), seeds: int = 5, cases: tuple[str, ...] = tuple(CASES)) -> None:
    """Print a table."""
    rows = []
    for case, source, seed in itertools.product(cases, data, range(seeds)):
        log = log_of(case, ["--data", source, "--seed", str(seed)])
        rows.append(f"| {case} | {Path(source).name} | {seed} | {summary(log)} |")
    print("\n| run | images | seed | verdict at its end | first alarm | loss/d | loss/g | diversity | duplicates |")
    print("|---" * 9 + "|\n" + "\n".join(rows))


if __name__ == "__main__":
    tyro.cli(main)
