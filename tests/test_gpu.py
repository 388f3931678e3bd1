"""Training on a GPU, by the real script. All other tests are of the CPU, where every machine gives the same bits."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import (
    LAUNCHER,
    ROOT,
    TINY,
    assert_same_weights,
    checkpoint_of,
    largest_difference,
    log_of,
    train,
    with_processes,
    without_clock,
)

pytestmark = pytest.mark.usefixtures("on_gpu")


def train_on_gpu(*words: object, precision: str = "no") -> None:
    """A tiny run on one GPU, which must succeed."""
    launcher = ["--config_file", str(ROOT / "accelerate_configs" / "single_gpu.yaml"), "--mixed_precision", precision]
    command = [sys.executable, LAUNCHER, *launcher, str(ROOT / "train.py"), *TINY, *map(str, words)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=280)
    if precision == "fp16" and "a known fault of the GTX 16xx" in result.stderr:
        pytest.skip("this card cannot do fp16")
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("precision", ["no", "bf16", "fp16"])
def test_resume_is_exact_on_a_gpu(precision: str, images: Path, tmp_path: Path) -> None:
    words = ("--data", images, "--log-every", 1, "--out")
    train_on_gpu(*words, tmp_path / "straight", "--iterations", 6, precision=precision)
    train_on_gpu(*words, tmp_path / "stopped", "--iterations", 3, precision=precision)
    train_on_gpu(*words, tmp_path / "stopped", "--iterations", 6, precision=precision)
    assert_same_weights(checkpoint_of(tmp_path / "straight", 6), checkpoint_of(tmp_path / "stopped", 6))
    straight = log_of(tmp_path / "straight")
    assert without_clock(straight) == without_clock(log_of(tmp_path / "stopped"))
    assert 0 < straight[-1]["perf/memory_mib"] < 1000


def test_a_gpu_trains_as_a_cpu_does(images: Path, tmp_path: Path) -> None:
    words = ("--data", images, "--dtype", "float64", "--iterations", 6, "--out")
    train_on_gpu(*words, tmp_path / "gpu")
    train(*words, tmp_path / "cpu", launcher=with_processes(1, "cpu"))
    assert largest_difference(checkpoint_of(tmp_path / "gpu", 6), checkpoint_of(tmp_path / "cpu", 6)) < 1e-10
