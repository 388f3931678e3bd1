"""SIGKILL at random instants: the run goes on by itself, and ends with the bits of a run that was left alone."""

import re
import subprocess
import sys

import pytest

from tests.conftest import ROOT


@pytest.mark.parametrize(("processes", "kills"), [(1, 12), (2, 6), pytest.param(2, 10, marks=pytest.mark.slow)])
def test_killed_again_and_again(processes: int, kills: int) -> None:
    words = f"--kills {kills} --processes {processes} --seed 3".split()
    command = [sys.executable, "-m", "tests.faults.kills", *words]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280)
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-2000:]
    line = result.stdout.splitlines()[-1]
    print(f"\n{line}")
    score = {name: int(value) for name, value in re.findall(r"(\w+)=(\d+)", line)}
    assert score["kills"] >= kills
    assert score["finished"] > 0
    assert score["different"] == 0
    assert score["repeated"] <= 4
