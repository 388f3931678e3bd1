"""slurm/job.sh without a Slurm: what it does before and beside a step, with a scontrol that is pretended."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import QUIET, ROOT


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """The scripts in a folder of their own, beside the trainer."""
    shutil.copytree(ROOT / "slurm", tmp_path / "slurm")
    (tmp_path / "train.py").symlink_to(ROOT / "train.py")
    (tmp_path / "bin").mkdir()
    return tmp_path


def job(place: Path, *lines: str) -> "subprocess.CompletedProcess[str]":
    """These lines of bash, after job.sh, in a job of one node."""
    script = "\n".join(["source slurm/job.sh || exit 2", *lines])
    path = f"{place / 'bin'}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "SLURM_JOB_ID": "7", "SLURM_NNODES": "1",
                   "SLURM_JOB_NODELIST": "n1", "SLURMD_NODENAME": "n1"}  # fmt: skip
    return subprocess.run(
        ["bash", "-c", script], cwd=place, env=environment, capture_output=True, text=True, timeout=60
    )


def controller(place: Path, failures: int) -> Path:
    """A scontrol that is not answered so often, and a file with a line for each time that it is asked."""
    asked, program = place / "asked", place / "bin" / "scontrol"
    program.write_text(f'#!/bin/sh\necho "$*" >> {asked}\n[ $(wc -l < {asked}) -le {failures} ] && exit 1\n'
                       'echo "JobId=7 JobState=RUNNING Requeue=1"\n')  # fmt: skip
    program.chmod(0o755)
    return asked


def test_what_the_site_runs_may_use_variables_that_are_not_set(place: Path) -> None:
    with open(place / "slurm" / "site.sh", "a") as site:
        site.write('export FORMER="$NOBODY_HAS_SET_THIS"\n')
    result = job(place, "echo ready; echo $NOBODY_HAS_SET_THIS")
    assert result.stdout == "ready\n"
    assert "NOBODY_HAS_SET_THIS: unbound variable" in result.stderr, "the job's own mistakes are found"


@pytest.mark.parametrize(("failures", "said"), [(0, "back into the queue"), (3, "back into the queue"),
                                                (99, "Slurm does not take it back")])  # fmt: skip
def test_a_controller_that_does_not_answer_is_asked_again(failures: int, said: str, place: Path) -> None:
    """A job that was told to stop comes back although its state could not be read."""
    asked = controller(place, failures)
    result = job(place, "sleep() { :; }", f"run_folder={place}", "come_back")
    assert result.returncode == 75
    assert said in result.stdout
    assert asked.read_text().splitlines()[-1] == "requeue 7"


def test_a_job_that_was_cancelled_stays_away(place: Path) -> None:
    asked = controller(place, 0)
    (place / "bin" / "scontrol").write_text((place / "bin" / "scontrol").read_text().replace("RUNNING", "CANCELLED"))
    result = job(place, f"run_folder={place}", "come_back")
    assert (result.returncode, "requeue" in asked.read_text()) == (75, False)


def test_a_dry_run_leaves_nothing_behind(place: Path) -> None:
    words = ("--dry-run", "--out", "run", "--iterations", "2", *QUIET)
    result = job(place, "train " + " ".join(map(str, words)))
    assert result.returncode == 0, result.stderr
    assert "Plan:" in result.stdout
    assert not (place / "run").exists()
