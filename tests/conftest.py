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
import torch
from accelerate.commands import launch
from PIL import Image
from torch import Tensor

from gan.checkpoint import Checkpoint, load, save
from gan.cli import main
from gan.config import Config, DataOptions, EmaConfig, ModelConfig, OptimizerConfig, TrackConfig, as_yaml, trajectory
from gan.latents import numbered
from gan.networks import NETWORKS
from gan.randomness import initialise
from gan.sample import draw_all
from gan.trained import load as load_generator
from tests.forked import run_forked

ROOT = Path(__file__).parents[1]
VISIBLE = os.environ.get("CUDA_VISIBLE_DEVICES")
os.environ["CUDA_VISIBLE_DEVICES"] = ""  # CPUs give the same bits everywhere; what needs a GPU asks for `on_gpu`
ITERATIONS, SEED = 6, 11  # of the runs made from `config`
LAUNCHER = launch.__file__
"""The program that `accelerate launch` is."""
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


@pytest.fixture(scope="session")
def gpus() -> int:
    """How many the machine has; another process looks, so that this one never knows of them."""
    code = "import torch; print(torch.cuda.device_count())"
    return int(subprocess.run([sys.executable, "-c", code], env=with_gpus(), capture_output=True, check=True).stdout)


@pytest.fixture
def on_gpu(gpus: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let what this test starts have the GPUs of the machine; skip it where there is none."""
    if not gpus:
        pytest.skip("needs a GPU")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    if VISIBLE is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", VISIBLE)


def with_gpus() -> dict[str, str]:
    """The environment as these tests found it."""
    rest = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
    return rest if VISIBLE is None else {**rest, "CUDA_VISIBLE_DEVICES": VISIBLE}


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


def run_script(*words: object, launcher: tuple[str, ...] = (), **options: Any) -> subprocess.CompletedProcess[str]:
    """train.py in a process of its own (see forked.py), or `accelerate launch … train.py …` with the words of
    `launcher` between. Options: env and cwd, as of subprocess.run."""
    script = [str(ROOT / "train.py"), *map(str, words)]
    command = [LAUNCHER, *launcher, *script] if launcher else script
    return run_forked(command, timeout=280, **options)


def run_module(
    name: str, *words: object, launcher: tuple[str, ...], timeout: float = 280
) -> subprocess.CompletedProcess[str]:
    """A module of the tests through `accelerate launch`."""
    return run_forked([LAUNCHER, *launcher, "-m", name, *map(str, words)], timeout, cwd=ROOT)


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


def drawn(path: Path, count: int, seed: int = 0, weights: str = "ema") -> np.ndarray:
    """The first images of a seed by the generator at `path`: uint8 (count, H, W, C)."""
    G = load_generator(path, weights)
    return draw_all(G, numbered(seed, range(count), G.z_dim))


def assert_same_weights(one: Checkpoint, two: Checkpoint) -> None:
    """Every tensor of two checkpoints, optimizer state and average included, bit for bit."""
    assert one.tensors.keys() == two.tensors.keys()
    for group, tensors in one.tensors.items():
        assert tensors, f"{group} is empty"
        assert_same_tensors(tensors, two.tensors[group])


def assert_same_tensors(one: dict[str, Tensor], two: dict[str, Tensor]) -> None:
    """Bit for bit."""
    assert one.keys() == two.keys()
    different = [name for name, tensor in one.items() if not tensor.equal(two[name])]
    assert not different


def largest_difference(one: Checkpoint, two: Checkpoint) -> float:
    """Between any two values of G, its average and D, statistics of BatchNorm included."""
    groups = ("generator", "generator_ema", "discriminator")
    pairs = [(value, two.tensors[group][name]) for group in groups for name, value in one.tensors[group].items()]
    assert pairs
    return max((a.double() - b.double()).abs().max().item() for a, b in pairs)


def gan(*words: object) -> int:
    """The `gan` command in this process; its exit status."""
    return main([*map(str, words)])


def untrained_run(folder: Path, **settings: Any) -> Path:
    """A run folder with one checkpoint of small networks, as they are drawn at first, whose images differ; with
    statistics and an average of their own."""
    model = ModelConfig(z_dim=8, width=4)
    config = Config(**{"data": "sprites", "resolution": 16, "iterations": 1, "model": model, **settings})
    G, D = NETWORKS[config.model.network](config)
    initialise(G, 0, "G", std=0.2)
    rng = np.random.default_rng(0)
    for name, buffer in G.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            buffer.copy_(torch.from_numpy(rng.uniform(0.1, 0.6, tuple(buffer.shape))))
    average = {name: value * 1.1 if value.is_floating_point() else value for name, value in G.state_dict().items()}
    tensors = {"generator": G.state_dict(), "generator_ema": average, "discriminator": D.state_dict()}
    state = {"trajectory": {**trajectory(config), "images": "none"}}
    save(folder / "checkpoints", 1, {name: cast(group, config.dtype) for name, group in tensors.items()}, state, None)
    (folder / "config.yaml").write_text(as_yaml(config), "utf-8")
    return folder


def cast(group: dict[str, Tensor], dtype: str) -> dict[str, Tensor]:
    return {n: value.to(getattr(torch, dtype)) if value.is_floating_point() else value for n, value in group.items()}
