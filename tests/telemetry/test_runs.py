"""`gan runs`: the table, from as little of each folder as will do."""

import json
import os
import time
from pathlib import Path

import filelock
import pytest

from gan.cli import main
from gan.telemetry.runs import ago, newest_values, print_runs, shown
from tests.telemetry.runs import entries, write_run


def table(folder: Path, capsys: pytest.CaptureFixture[str]) -> list[dict[str, str]]:
    """What `gan runs` prints: for each line, heading → text. Columns begin or end where their headings do."""
    print_runs(folder)
    head, *lines = capsys.readouterr().out.splitlines()
    names = ["run", "state", "iteration", "kimg", "loss D", "loss G", "verdict", "best", "images/s", "updated"]
    names = [name for name in names if name in head]
    rows = [[cell for cell in line.split("  ") if cell.strip()] for line in lines]
    return [dict(zip(names, map(str.strip, row), strict=True)) for row in rows]


def age(run: Path, seconds: float) -> None:
    for name in ("log.jsonl", "status.json"):
        if (run / name).exists():
            os.utime(run / name, (time.time() - seconds,) * 2)


def test_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old = write_run(tmp_path / "sweep" / "deep" / "a", entries(20), status={"state": "finished", "iteration": 1000})
    new = write_run(tmp_path / "b", entries(10), status={"state": "preempted", "iteration": 500, "total": 8000})
    write_run(tmp_path / "b" / "previous-1", entries(1))
    write_run(tmp_path / "too" / "deep" / "to" / "see", entries(1))
    entry = {"iteration": 500, "images": 32_000, "loss/d": None, "loss/g": -1234.56, "verdict": "healthy"}
    line = json.dumps({**entry, "perf/images_per_second": 99.94})
    (new / "log.jsonl").write_text(f'{line}\n{{"iteration": 501')
    for run, iteration, value in ((old, 3, 5.5), (old, 4, 4.25), (old, 5, 7.0), (new, 1, 9.0)):
        place = run / "checkpoints" / f"iteration-{iteration:08d}"
        place.mkdir(parents=True)
        score = {"metric": "swd", "value": value, "better": "lower"}
        (place / "state.json").write_text(json.dumps({"score": score}))
    age(old, 3 * 3600 + 5)
    age(new, 200)
    rows = table(tmp_path, capsys)
    assert rows[0] | {"loss D": "", "loss G": "", "images/s": ""} == {
        "run": "sweep/deep/a", "state": "finished", "iteration": "1000", "kimg": "64", "loss D": "", "loss G": "",
        "verdict": "healthy", "best": "swd 4.25", "images/s": "", "updated": "3 h ago"}  # fmt: skip
    assert rows[1:] == [
        {"run": "b", "state": "preempted", "iteration": "500/8000", "kimg": "32", "loss D": "–", "loss G": "-1235",
         "verdict": "healthy", "best": "swd 9", "images/s": "99.9", "updated": "3 min ago"}]  # fmt: skip
    age(old, 0)
    assert [row["run"] for row in table(tmp_path, capsys)] == ["b", "sweep/deep/a"], "the newest last"
    assert [row["run"] for row in table(new, capsys)] == ["b"]
    print_runs(tmp_path)
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 120


def test_a_run_that_nobody_runs_was_killed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = write_run(tmp_path / "run", entries(3))
    before = sorted(run.iterdir())
    assert table(tmp_path, capsys)[0]["state"] == "running"
    age(run, 3600)
    assert table(tmp_path, capsys)[0]["state"] == "killed"
    assert sorted(run.iterdir()) == before, "no lock is made"
    with filelock.FileLock(run / ".lock"):
        assert table(tmp_path, capsys)[0]["state"] == "running"
    (run / ".lock").touch()
    assert table(tmp_path, capsys)[0]["state"] == "killed"
    with filelock.FileLock(run / ".lock").acquire(timeout=0):
        pass  # it was released
    os.utime(run / "log.jsonl")
    assert table(tmp_path, capsys)[0]["state"] == "running"
    (run / "status.json").write_text('{"state": "failed"}')
    age(run, 3600)
    assert table(tmp_path, capsys)[0]["state"] == "failed"


def test_of_a_long_log_the_end_is_read(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    assert newest_values(log) == {}
    lines = [json.dumps({"iteration": number, "loss/d": number, "x": "é" * 50}) for number in range(5000)]
    lines[0] = '{"iteration": 0, "long ago": 1}'
    lines[-2] = '{"iteration": 4998, "eval/swd": 1.5}'
    log.write_text("\n".join(lines) + '\n[3]\nnull\n{"loss/d": 7}\n{"iteration": 5000, "loss/d"', "utf-8")
    assert newest_values(log) == {"iteration": 4999, "loss/d": 4999, "eval/swd": 1.5, "x": "é" * 50}


def test_damaged_and_missing_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = write_run(tmp_path / "run", [])
    (run / "log.jsonl").unlink()
    for rubbish in ("", "[1]", "{"):
        (run / "status.json").write_text(rubbish)
        assert table(tmp_path, capsys)[0]["state"] == "unknown"
    for folder, told in ((tmp_path / "none", "there is no folder"), (run / "samples", "has no run folders in it")):
        assert main(["runs", str(folder)]) == 2
        assert told in capsys.readouterr().err


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (3, "just now"),
        (61, "1 min ago"),
        (3599, "59 min ago"),
        (7200, "2 h ago"),
        (86_400, "1 day ago"),
        (1e6, "11 days ago"),
    ],
)
def test_times(seconds: float, words: str) -> None:
    assert ago(seconds) == words


def test_numbers() -> None:
    assert [shown(value) for value in (0.123456, 12345, 1234.5, 1e9, 0.0, None, True, "x")] == [
        "0.123", "12345", "1234", "1e+09", "0", "–", "–", "–"]  # fmt: skip
    assert shown(123_456_000, 0.001) == "123456"
