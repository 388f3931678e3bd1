"""Runs that go on, by the real script: to the same weights, and only where they belong."""

from pathlib import Path

import pytest

from tests.conftest import TINY, assert_same_weights, checkpoint_of, log_of, run_script, train, without_clock


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_resume_is_exact(dtype: str, images: Path, tmp_path: Path) -> None:
    """6 iterations = 3, a new process, 3 more. Batches of 8 from 20 images: passes end inside iterations 3 and 5."""
    words = ("--data", images, "--dtype", dtype, "--log-every", 1, "--out")
    train(*words, tmp_path / "straight", "--iterations", 6)
    train(*words, tmp_path / "stopped", "--iterations", 3)
    printed = train(*words, tmp_path / "stopped", "--iterations", 6)
    assert "Going on from" in printed
    straight = checkpoint_of(tmp_path / "straight", 6)
    assert str(straight.tensors["generator"]["to_image.weight"].dtype) == f"torch.{dtype}"
    assert_same_weights(straight, checkpoint_of(tmp_path / "stopped", 6))
    assert without_clock(log_of(tmp_path / "straight")) == without_clock(log_of(tmp_path / "stopped"))


def test_the_ways_to_resume(images: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    words = ("--data", images, "--checkpoint.every", 2)
    train(*words, "--out", run, "--iterations", 4)
    start = run / "checkpoints" / "iteration-00000002"
    printed = train(*words, "--out", tmp_path / "branch", "--iterations", 4, "--resume", start)
    assert f"Going on from {start}" in printed
    assert_same_weights(checkpoint_of(run, 4), checkpoint_of(tmp_path / "branch", 4))

    damaged = run / "checkpoints" / "iteration-00000004" / "generator.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    printed = train(*words, "--out", run, "--iterations", 4)
    assert f"{damaged} is damaged" in printed
    assert f"Going on from {start}" in printed
    assert_same_weights(checkpoint_of(run, 4), checkpoint_of(tmp_path / "branch", 4))

    refused = run_script(*TINY, *words, "--out", run, "--iterations", 2, "--resume", start)
    assert "is already as long as this run" in refused.stderr

    train(*words, "--out", run, "--iterations", 2, "--resume", "never")
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["iteration-00000002"]
    assert (run / "previous-1" / "checkpoints" / "iteration-00000004").is_dir()

    (start / "manifest.json").write_text("{}")
    refused = run_script(*TINY, *words, "--out", run, "--iterations", 2)
    assert refused.returncode == 2
    assert f"no checkpoint in {run}/checkpoints is whole. To start anew: --resume never." in refused.stderr
    printed = train(*words, "--out", run, "--iterations", 2, "--resume", "never")
    assert "is now in" in printed
    assert (run / "previous-2" / "checkpoints" / "iteration-00000002" / "manifest.json").read_text() == "{}"
    assert checkpoint_of(run, 2)


def test_going_back_in_ones_own_folder_can_be_repeated(images: Path, tmp_path: Path) -> None:
    """The run ends before it has saved anything; what it went on from is there again, for both commands."""
    run = tmp_path / "run"
    words = ("--data", images, "--checkpoint.every", 2, "--out", run)
    train(*words, "--iterations", 4)
    start = run / "checkpoints" / "iteration-00000002"
    diverging = ("--optim-d.lr", 1e30, "--resume-changed", True, "--max-skipped", 1, "--log-every", 1)
    for _ in range(2):
        ended = run_script(*TINY, *words, "--iterations", 9, "--resume", start, *diverging)
        assert (ended.returncode, ended.stdout.count(f"Going on from {start}")) == (1, 1), ended.stderr
        assert "the same command with --resume auto goes on from iteration-00000002" in ended.stdout
        assert sorted(path.name for path in (run / "checkpoints").iterdir()) == [start.name]
    assert f"Going on from {start}" in train(*words, "--iterations", 4)
    assert (run / "previous-1" / "checkpoints" / "iteration-00000004").is_dir()


def test_a_refused_command_leaves_the_former_run_in_its_place(images: Path, tmp_path: Path) -> None:
    words = ("--data", images, "--iterations", 1)
    train(*words, "--out", tmp_path / "other", "--model.width", 12, "--model.z-dim", 9)
    train(*words, "--out", tmp_path / "run")
    anew = (*words, "--out", tmp_path / "run", "--resume", "never", "--init-from", tmp_path / "other")
    refused = run_script(*TINY, *anew)
    assert (refused.returncode, refused.stderr.count("fits this network")) == (2, 1)
    assert not (tmp_path / "run" / "previous-1").exists()
    assert "has already finished" in train(*words, "--out", tmp_path / "run")


def test_another_run_is_not_continued(images: Path, tmp_path: Path) -> None:
    words = ("--data", images, "--out", tmp_path, "--iterations", 1)
    train(*words)
    result = run_script(*TINY, *words, "--seed", 3, "--objective.loss", "saturating")
    assert result.returncode == 2
    assert "was made with --seed 0, --objective.loss non-saturating" in result.stderr
    result = run_script(*TINY, *words, "--data", "sprites")
    assert "was made with other images" in result.stderr
    result = run_script(*TINY, *words, launcher=("--mixed_precision", "bf16"))
    assert "was made with mixed precision no" in result.stderr
