"""Recipes and checkpoints, listed."""

import errno
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from gan.cli import train
from gan.listing import RECIPES, best, listed


def test_recipes_are_listed_without_importing_torch() -> None:
    code = "import sys; from gan.cli import train; print(train(sys.argv[1:]), 'torch' in sys.modules)"
    command = [sys.executable, "-c", code, "--recipe", "list", "--seed", "1"]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    *lines, last = result.stdout.splitlines()
    assert last == "0 False"
    assert [line.split()[0] for line in lines] == sorted(path.stem for path in RECIPES.glob("*.yaml"))
    assert max(map(len, lines)) <= 80
    assert "quickstart          The first run: built-in creatures at 32×32, minutes on a CPU" in lines
    assert all(re.fullmatch(r"\S+  +\w.*[^.,:;]", line) for line in lines), "each first line stands alone"


def test_recipes_are_listed_once_for_all_processes(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "1")
    assert train(["--recipe=list"]) == 0
    assert not capsys.readouterr().out


def scored(folder: Path, iteration: int, value: object, better: str, metric: str = "swd", **protocol: object) -> Path:
    """What `best` reads of a checkpoint."""
    (path := folder / f"iteration-{iteration:08d}").mkdir()
    score = {"metric": metric, "value": value, "better": better, **protocol}
    (path / "state.json").write_text(json.dumps({"score": score}))
    return path


def test_checkpoints_by_name(tmp_path: Path) -> None:
    """By number, not by letters; whatever else is there is none."""
    for name in ("iteration-99999999", "iteration-100000001", "iteration-100000000", "iteration-best",
                 "iteration-00000001.old", "iteration-7", "x-iteration-00000001"):  # fmt: skip
        (tmp_path / name).mkdir()
    found = [path.name for path in listed(tmp_path)]
    assert found == ["iteration-100000001", "iteration-100000000", "iteration-99999999"]
    assert listed(tmp_path / "nothing") == []


def test_scores_of_another_metric_and_rubbish_do_not_count(tmp_path: Path) -> None:
    scored(tmp_path, 1, 0.1, "lower", "other")
    good = scored(tmp_path, 2, 5, "lower")
    for number, value in ((3, float("nan")), (4, "low"), (5, None)):
        scored(tmp_path, number, value, "lower")
    (tmp_path / "iteration-00000006").mkdir()
    (tmp_path / "iteration-00000007").mkdir()
    (tmp_path / "iteration-00000007" / "state.json").write_text("{}")
    assert best(tmp_path) == (good, {"metric": "swd", "value": 5, "better": "lower"})
    assert best(tmp_path / "nothing") == (None, {})


def test_only_scores_that_were_measured_alike_are_compared(tmp_path: Path) -> None:
    for number, (count, images) in enumerate(((20, "a"), (4, "b"), (4, "a"), (4, "a"), (20, "a")), 1):
        scored(tmp_path, number, number, "lower", count=count, images=images)
    assert best(tmp_path)[1]["value"] == 1
    scored(tmp_path, 6, 6, "lower", count=4, images="a")
    assert best(tmp_path)[1]["value"] == 3


def test_a_folder_that_cannot_be_read_is_not_an_empty_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: Path) -> list[str]:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("os.listdir", fail)
    with pytest.raises(OSError, match="Input/output"):
        listed(tmp_path)


def test_the_best_is_the_lowest_or_the_highest_and_of_equals_the_newest(tmp_path: Path) -> None:
    for better, wanted in (("lower", 3), ("higher", 5)):
        (folder := tmp_path / better).mkdir()
        for number, value in enumerate((2, 1, 1, 3, 3, 2), 1):
            scored(folder, number, value, better)
        assert best(folder)[0] == folder / f"iteration-{wanted:08d}"
