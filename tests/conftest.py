"""What the tests share: a private cache, a folder of small images, and the real script as a subprocess."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gan.checkpoint import Checkpoint, load

ROOT = Path(__file__).parents[1]
Run = Callable[..., subprocess.CompletedProcess[str]]
TINY = [
    "--resolution",
    "16",
    "--model.width",
    "4",
    "--model.z-dim",
    "8",
    "--batch-size",
    "8",
    "--track.wandb",
    "disabled",
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


def run_script(*words: object, launcher: tuple[str, ...] = (), **options: object) -> subprocess.CompletedProcess[str]:
    """`python train.py …`, or `accelerate launch … train.py …` with the words of `launcher` between."""
    start = [sys.executable, "-m", "accelerate.commands.launch", *launcher] if launcher else [sys.executable]
    command = [*start, str(ROOT / "train.py"), *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=280, **options)  # type: ignore[call-overload]


def train(*words: object, launcher: tuple[str, ...] = ()) -> str:
    """A tiny run that must succeed; what it printed."""
    result = run_script(*TINY, *words, launcher=launcher)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def checkpoint_of(run: Path, iteration: int) -> Checkpoint:
    return load(run / "checkpoints" / f"iteration-{iteration:08d}")


def assert_same_weights(one: Checkpoint, two: Checkpoint) -> None:
    """Every tensor of two checkpoints, optimizer state and average included, bit for bit."""
    assert one.tensors.keys() == two.tensors.keys()
    for group, tensors in one.tensors.items():
        assert tensors.keys() == two.tensors[group].keys()
        assert tensors, f"{group} is empty"
        for name, tensor in tensors.items():
            assert tensor.equal(two.tensors[group][name]), f"{group}: {name} differs"
