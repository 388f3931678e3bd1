"""What every change must keep: formatting, lint and types."""

import subprocess
import sys

import pytest
import yaml

from tests.conftest import ROOT

COMMANDS = ["ruff format --check .", "ruff check .", "mypy"]


@pytest.mark.parametrize("command", COMMANDS)
def test_style(command: str) -> None:
    result = subprocess.run([sys.executable, "-m", *command.split()], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


def test_the_hooks_are_the_same_and_all_tests_on_demand() -> None:
    """With the tools that are installed, on all files: nothing is fetched."""
    (repository,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    hooks = repository["hooks"]
    assert repository["repo"] == "local"
    assert [hook["entry"] for hook in hooks] == [*COMMANDS, "pytest"]
    assert [hook.pop("stages", None) for hook in hooks] == [*[None] * len(COMMANDS), ["manual"]]
    assert all(hook.keys() == {"id", "name", "entry", "language", "pass_filenames"} for hook in hooks)
    assert {(hook["language"], hook["pass_filenames"]) for hook in hooks} == {("system", False)}
