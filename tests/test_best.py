"""Evaluation during training, and the best checkpoint, which stays."""

import json
from pathlib import Path

import pytest

from tests.conftest import TINY, assert_same_weights, checkpoint_of, drawn, run_script, train, with_processes

WORDS = ("--iterations", 16, "--log-every", 4, "--checkpoint.every", 4, "--checkpoint.keep", 2)
MEASURE = ("--eval.every", 2, "--eval.count", 20)


@pytest.mark.parametrize("metric", ["swd", "prdc"])
def test_the_best_checkpoint_stays_and_training_is_the_same(metric: str, images: Path, tmp_path: Path) -> None:
    train("--data", images, *WORDS, "--out", tmp_path / "plain")
    words = ("--data", images, *WORDS, *MEASURE, "--eval.metric", metric, "--checkpoint.keep", 16)
    said = train(*words, "--out", tmp_path / "run")
    assert_same_weights(checkpoint_of(tmp_path / "run", 16), checkpoint_of(tmp_path / "plain", 16))
    scores = {
        iteration: checkpoint_of(tmp_path / "run", iteration).state["score"]["value"] for iteration in range(2, 17, 2)
    }
    choose = min if metric == "swd" else max
    best = max(iteration for iteration, value in scores.items() if value == choose(scores.values()))
    assert f"The best by {metric}, {scores[best]:.4g}: {tmp_path}/run/checkpoints/iteration-{best:08d}" in said
    lines = {
        line["iteration"]: line for line in map(json.loads, (tmp_path / "run" / "log.jsonl").read_text().splitlines())
    }
    assert [iteration for iteration, line in lines.items() if any("eval/" in key for key in line)] == [*scores]
    name = "eval/swd" if metric == "swd" else "eval/coverage"
    assert [lines[iteration][name] for iteration in (4, 8, 12, 16)] == [
        scores[iteration] for iteration in (4, 8, 12, 16)
    ]

    newest, early = (tmp_path / "run" / "checkpoints" / f"iteration-{iteration:08d}" for iteration in (16, 2))
    samples = drawn(tmp_path / "run", 3, seed=1)
    assert (samples == drawn(newest, 3, seed=1)).all()
    assert (samples != drawn(early, 3, seed=1)).any()
    assert (samples != drawn(newest, 3, seed=1, weights="raw")).any()


def test_on_two_processes_the_same_is_measured(images: Path, tmp_path: Path) -> None:
    words = ("--data", images, *WORDS, *MEASURE, "--dtype", "float64", "--iterations", 6)
    train(*words, "--out", tmp_path / "one")
    train(*words, "--iterations", 3, "--out", tmp_path / "two")
    train(*words, "--out", tmp_path / "two", launcher=with_processes(2))
    for iteration in (4, 6):
        one, two = (checkpoint_of(tmp_path / run, iteration).state["score"]["value"] for run in ("one", "two"))
        assert two == pytest.approx(one, rel=1e-6)


def test_an_unknown_metric_is_refused(images: Path, tmp_path: Path) -> None:
    refused = run_script(*TINY, "--data", images, *WORDS, "--eval.metric", "sdw", "--out", tmp_path / "run")
    assert refused.returncode == 2
    assert "did you mean swd?" in refused.stderr
    assert not (tmp_path / "run").exists()
