import json
from pathlib import Path

import pytest

from benchmarks.communication import buckets, messages, seconds
from gan.config import Config, ModelConfig
from gan.networks.dcgan import Generator
from tests.conftest import QUIET, run_module, with_processes

CASES: dict[str, tuple[str, ...]] = {
    "BatchNorm first": ("--model.norm-first", "True"),
    "accumulation": ("--accumulation", "2", "--model.width", "32"),
    "2 critic steps": ("--objective.loss", "relativistic", "--objective.n-critic", "2"),
    "fresh latents": ("--objective.shared-latents", "False"),
}


@pytest.fixture(scope="module")
def compared(images: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, dict[str, list[list[int]]]]]:
    """What each of two processes found: bytes sent, and bytes counted. The cases share their start."""
    common = ("--resolution", 32, "--model.width", 64, "--batch-size", 8, *QUIET, "--iterations", 9, "--data", images)
    jobs = {name: [str(word) for word in (*common, *words)] for name, words in CASES.items()}
    where = tmp_path_factory.mktemp("runs")
    module = "tests.distributed.messages_on_all"
    result = run_module(module, where, json.dumps(jobs), launcher=with_processes(2))
    assert result.returncode == 0, result.stderr
    return [json.loads(line) for line in result.stdout.splitlines() if line.startswith("{")]


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_a_real_iteration_sends_what_is_counted(
    name: str, compared: list[dict[str, dict[str, list[list[int]]]]]
) -> None:
    assert len(compared) == 2
    for process in compared:
        for found, counted in process[name].values():
            assert found == counted
            assert found


def test_gradients_are_all_the_parameters() -> None:
    G = Generator(64, 3, 100, 64)
    assert sum(buckets(G)) == 4 * 3_576_704
    gradients, statistics = messages(Config(model=ModelConfig(norm_first=True)), 8)
    assert sum(gradients) == 4 * (3_576_704 + 2_765_696)
    assert len(statistics) == 4 * 2 + 4 * 6


def test_the_time_of_a_ring() -> None:
    assert seconds([800], processes=4, bytes_per_s=100, latency_s=0.5) == 2 * 3 / 4 * 8 + 0.5
