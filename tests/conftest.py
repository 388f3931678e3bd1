"""What the tests share: a private cache, a folder of small images, and the real script as a subprocess."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gan.checkpoint import Checkpoint, load
from gan.config import Config, DataOptions, EmaConfig, ModelConfig, OptimizerConfig, TrackConfig

ROOT = Path(__file__).parents[1]
ITERATIONS, SEED = 6, 11  # of the runs made from `config`
Run = Callable[..., subprocess.CompletedProcess[str]]
QUIET = ("--track.wandb", "disabled", "--track.report", "False")
"""Neither W&B nor a report, each of which takes seconds."""
TINY = [
    "--resolution",
    "16",
    "--model.width",
    "4",
    "--model.z-dim",
    "8",
    "--batch-size",
    "8",
    *QUIET,
]


@pytest.fixture(scope="session", autouse=True)
def private_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nothing is read from, or left in, the user's own cache."""
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))
    return Path(os.environ["XDG_CACHE_HOME"])


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 20 images of different sizes, some in a folder below it."""
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for index in range(20):
        place = folder / ("deep/deeper" if index % 2 else ".") / f"image {index}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        size = (int(rng.integers(20, 60)), int(rng.integers(20, 60)), 3)
        Image.fromarray(rng.integers(0, 256, size, dtype=np.uint8)).save(place)
    return folder


@pytest.fixture
def config(images: Path, tmp_path: Path) -> Config:
    """Every setting away from its default, so that one that is ignored shows. 20 images, batches of 8."""
    return Config(
        data=str(images),
        out=tmp_path / "run",
        resolution=16,
        batch_size=8,
        iterations=ITERATIONS,
        seed=SEED,
        log_every=1,
        dtype="float64",
        model=ModelConfig(z_dim=5, width=4, norm_first=True),
        optim_d=OptimizerConfig(lr=3e-3, beta1=0.4, beta2=0.9),
        optim_g=OptimizerConfig(lr=1e-3, beta1=0.3, beta2=0.95),
        ema=EmaConfig(decay=0.25),
        data_options=DataOptions(cache=tmp_path / "cache"),
        track=TrackConfig(wandb="disabled", report=False),
    )


def run_script(*words: object, launcher: tuple[str, ...] = (), **options: object) -> subprocess.CompletedProcess[str]:
    """`python train.py …`, or `accelerate launch … train.py …` with the words of `launcher` between."""
    start = [sys.executable, "-m", "accelerate.commands.launch", *launcher] if launcher else [sys.executable]
    command = [*start, str(ROOT / "train.py"), *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=280, **options)  # type: ignore[call-overload]


def run_module(
    name: str, *words: object, launcher: tuple[str, ...], timeout: float = 280
) -> subprocess.CompletedProcess[str]:
    """A module of the tests through `accelerate launch`."""
    command = [sys.executable, "-m", "accelerate.commands.launch", *launcher, "-m", name, *map(str, words)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=timeout)


def train(*words: object, launcher: tuple[str, ...] = ()) -> str:
    """A tiny run that must succeed; what it printed."""
    result = run_script(*TINY, *words, launcher=launcher)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def with_processes(number: int, config: str = "cpu_2") -> tuple[str, ...]:
    """Words for the launcher: this many processes by one of the shipped configurations."""
    return ("--config_file", str(ROOT / "accelerate_configs" / f"{config}.yaml"), "--num_processes", str(number))


def checkpoint_of(run: Path, iteration: int) -> Checkpoint:
    return load(run / "checkpoints" / f"iteration-{iteration:08d}")


def log_of(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


def without_clock(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Lines of a log without what differs from run to run: time and memory."""
    return [{name: value for name, value in entry.items() if not name.startswith("perf/")} for entry in entries]


def assert_same_weights(one: Checkpoint, two: Checkpoint) -> None:
    """Every tensor of two checkpoints, optimizer state and average included, bit for bit."""
    assert one.tensors.keys() == two.tensors.keys()
    for group, tensors in one.tensors.items():
        assert tensors.keys() == two.tensors[group].keys()
        assert tensors, f"{group} is empty"
        for name, tensor in tensors.items():
            assert tensor.equal(two.tensors[group][name]), f"{group}: {name} differs"


def largest_difference(one: Checkpoint, two: Checkpoint) -> float:
    """Between any two values of G, its average and D, statistics of BatchNorm included."""
    groups = ("generator", "generator_ema", "discriminator")
    pairs = [(value, two.tensors[group][name]) for group in groups for name, value in one.tensors[group].items()]
    assert pairs
    return max((a.double() - b.double()).abs().max().item() for a, b in pairs)
