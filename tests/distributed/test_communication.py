from pathlib import Path

import pytest

from benchmarks.communication import buckets, messages, seconds
from gan.config import Config, ModelConfig
from gan.networks.dcgan import Generator
from tests.conftest import QUIET, run_module, with_processes


@pytest.mark.parametrize(
    "words",
    [
        ("--model.norm-first", "True"),
        ("--accumulation", "2", "--model.width", "32"),
        ("--objective.loss", "relativistic", "--objective.n-critic", "2"),
        ("--objective.shared-latents", "False"),
    ],
)
def test_a_real_iteration_sends_what_is_counted(words: tuple[str, ...], images: Path, tmp_path: Path) -> None:
    more = ("--resolution", 32, "--model.width", 64, "--batch-size", 8, *QUIET, "--iterations", 9)
    start = ("--data", images, "--out", tmp_path, *more)
    result = run_module("tests.distributed.messages_on_all", *start, *words, launcher=with_processes(2))
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("as counted") == 2


def test_gradients_are_all_the_parameters() -> None:
    G = Generator(64, 3, 100, 64)
    assert sum(buckets(G)) == 4 * 3_576_704
    gradients, statistics = messages(Config(model=ModelConfig(norm_first=True)), 8)
    assert sum(gradients) == 4 * (3_576_704 + 2_765_696)
    assert len(statistics) == 4 * 2 + 4 * 6


def test_the_time_of_a_ring() -> None:
    assert seconds([800], processes=4, bytes_per_s=100, latency_s=0.5) == 2 * 3 / 4 * 8 + 0.5
