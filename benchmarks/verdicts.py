"""How often a run is called what it is: healthy runs, the saturating recipe, and a generator that has one image only.

    python -m benchmarks.verdicts [--data sprites FOLDER_OR_ZIP …] [--seeds 5]

Each case on each set and seed, at the size of the quickstart or below. A verdict is given from iteration 500 on.
"""

import json
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import tyro
from torch import Tensor

from gan.config import Config, parse
from gan.networks import NETWORKS
from gan.networks.dcgan import Discriminator, Generator
from gan.telemetry.health import VERDICTS
from gan.trainer import train

CASES = {
    "healthy": "--recipe quickstart --iterations 1000",
    "saturating": "--recipe pokemon-saturating --resolution 16 --model.width 32 --batch-size 64 --iterations 700",
    "one mode": "--recipe quickstart --model.network one-mode --iterations 700",
}


class OneMode(Generator):
    """Draws one and the same image, which it may improve."""

    def forward(self, z: Tensor) -> list[Tensor]:
        return super().forward(0 * z + 1)


def one_mode(config: Config) -> tuple[Generator, Discriminator]:
    """A DCGAN with a generator that has collapsed by force."""
    G, D = NETWORKS["dcgan"](config)
    G.__class__ = OneMode
    return G, D


def log_of(words: list[str]) -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as scratch:
        quiet = ["--track.with", "none", "--track.report", "False", "--sample-every", "10000"]
        train(parse([*words, *quiet, "--out", f"{scratch}/run"]))
        return [json.loads(line) for line in Path(scratch, "run", "log.jsonl").read_text().splitlines()]


def main(data: tuple[str, ...] = ("sprites",), seeds: int = 5) -> None:
    """Print a table."""
    NETWORKS["one-mode"] = one_mode
    rows = []
    for case, words in CASES.items():
        for source in data:
            logs = [log_of([*words.split(), "--data", source, "--seed", str(seed)]) for seed in range(seeds)]
            last = Counter(log[-1]["verdict"] for log in logs)
            alarms = Counter(
                verdict for log in logs for verdict in {entry["verdict"] for entry in log} & VERDICTS.keys()
            )
            words_of = [
                ", ".join(f"{word} {count}" for word, count in counts.items()) or "–" for counts in (last, alarms)
            ]
            rows.append(f"| {case} | {Path(source).name} | {seeds} | {words_of[0]} | {words_of[1]} |")
            print(rows[-1], flush=True)
    print("\n| case | images | runs | verdict at the end | runs with an alarm on the way |\n|---|---|---|---|---|")
    print("\n".join(rows))


if __name__ == "__main__":
    tyro.cli(main)
