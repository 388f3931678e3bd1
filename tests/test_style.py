"""What every change must keep: formatting, lint and types."""

import subprocess
import sys

import pytest
import yaml

from tests.conftest import ROOT

COMMANDS = ["ruff format --check .", "ruff check .", "mypy"]
ELSEWHERE = {
    "networks/batchnorm.py": "distributed/test_batchnorm.py",
    "orphans.py": "faults/test_signals.py",
    "preemption.py": "faults/test_signals.py",
}
"""Modules of which one process shows nothing."""


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


def test_each_module_is_tested_where_one_looks_for_it() -> None:
    """gan/x.py in tests/test_x.py."""
    for module in (ROOT / "gan").rglob("[!_]*.py"):
        name = module.relative_to(ROOT / "gan")
        assert (ROOT / "tests" / ELSEWHERE.get(name.as_posix(), name.with_name(f"test_{name.name}"))).is_file(), name
