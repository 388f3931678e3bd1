"""A disk that refuses: the last good checkpoint stays, training goes on, and what could not be written comes later."""

import json
import resource
import shutil
import signal
import sys
from pathlib import Path

import psutil
import pytest

from tests.conftest import assert_same_weights, checkpoint_of, train
from tests.faults.jobs import Job, status_of

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="sets a limit of another process")
UNLIMITED = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
NOTHING = (100, resource.RLIM_INFINITY)
"""No file may grow beyond so many bytes: room for status.json, and no more."""
ENDLESS = ("--iterations", 1_000_000, "--checkpoint.every", 5, "--log-every", 1, "--sample-every", 5)


def saved(run: Path) -> list[str]:
    return sorted(path.name for path in (run / "checkpoints").glob("iteration-*"))


def test_a_disk_that_is_full_for_a_while(images: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    job = Job("python", run, "--data", images, *ENDLESS, "--checkpoint.max-failures", 1_000_000).wait_for_iteration(6)
    psutil.Process(job.process.pid).rlimit(resource.RLIMIT_FSIZE, NOTHING)
    full = status_of(run)["iteration"]
    job.wait_for_iteration(full + 20)
    during = saved(run)
    psutil.Process(job.process.pid).rlimit(resource.RLIMIT_FSIZE, UNLIMITED)
    relieved = status_of(run)["iteration"]
    job.wait_for_iteration(relieved + 12)
    job.process.send_signal(signal.SIGTERM)
    code, said = job.end()
    assert code == 75
    assert "could not be saved (File too large); the last good one is iteration-" in said
    assert "log.jsonl could not be written (File too large); training goes on" in said
    assert all(int(name[-8:]) <= full + 5 for name in during), "and nothing half-written among them"
    assert int(saved(run)[-1][-8:]) >= relieved
    done = status_of(run)["iteration"]
    lines = [json.loads(line)["iteration"] for line in (run / "log.jsonl").read_text().splitlines()]
    assert lines == list(range(1, done + 1)), "no line is lost, none is there twice"


def test_a_run_folder_that_is_removed_is_made_again(images: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    job = Job("python", run, "--data", images, *ENDLESS).wait_for_iteration(6)
    shutil.rmtree(run, ignore_errors=True)
    job.wait_for_iteration(status_of(run).get("iteration", 6) + 20)
    job.process.send_signal(signal.SIGTERM)
    code, said = job.end()
    assert code == 75
    assert "log.jsonl could not be written (No such file or directory); training goes on" in said
    end = status_of(run)["iteration"] + 4
    words = ("--data", images, "--iterations", end, "--log-every", 1)
    train("--recipe", run / "config.yaml", *words, "--out", run)
    train(*words, "--out", tmp_path / "straight")
    assert_same_weights(checkpoint_of(run, end), checkpoint_of(tmp_path / "straight", end))
    assert list((run / "samples").glob("iteration-*.png"))
    assert (run / "environment.json").exists()


def test_a_disk_that_stays_full_ends_the_run_and_the_next_goes_on(images: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    job = Job("python", run, "--data", images, *ENDLESS, "--checkpoint.max-failures", 3).wait_for_iteration(6)
    psutil.Process(job.process.pid).rlimit(resource.RLIMIT_FSIZE, NOTHING)
    code, said = job.end()
    assert code == 1
    last = saved(run)[-1]
    assert said.count("Training goes on") == 2
    assert f"could not be saved (File too large); the last good one is {last}. Make room" in said
    end = int(last[-8:]) + 8
    words = ("--data", images, "--iterations", end, "--checkpoint.every", 5, "--log-every", 1)
    train(*words, "--out", run)
    train(*words, "--out", tmp_path / "straight")
    assert_same_weights(checkpoint_of(run, end), checkpoint_of(tmp_path / "straight", end))


def test_a_last_checkpoint_that_cannot_be_saved_is_a_failure(images: Path, tmp_path: Path) -> None:
    job = Job("python", tmp_path / "run", "--data", images, *ENDLESS).wait_for_iteration(6)
    psutil.Process(job.process.pid).rlimit(resource.RLIMIT_FSIZE, NOTHING)
    job.process.send_signal(signal.SIGTERM)
    code, said = job.end()
    assert code == 1
    assert "could not be saved (File too large)" in said
    assert status_of(tmp_path / "run")["state"] == "failed"
