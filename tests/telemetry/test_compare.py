"""`gan plot`: several runs in one picture."""

from pathlib import Path

import numpy as np
import pytest

from gan.cli import main
from gan.errors import UsageError
from gan.telemetry.compare import chosen, labels
from gan.telemetry.history import Curve, History
from tests.telemetry.runs import count_of, entries, pixels, write_run


def test_runs_side_by_side(tmp_path: Path) -> None:
    a, b = write_run(tmp_path / "x" / "_r$un^", entries(50)), write_run(tmp_path / "y" / "_r$un^", entries(20, 0.2))
    one, two = tmp_path / "one.png", tmp_path / "new" / "two.png"
    words = [str(a), str(b), str(a / ".." / "_r$un^"), "--out", str(two)]
    assert main(["plot", str(a), "--out", str(one)]) == 0
    assert main(["plot", *words]) == 0
    first, second = one.read_bytes(), two.read_bytes()
    assert count_of(first, "#1f77b4") > 1000
    assert count_of(first, "#ff7f0e") == 0
    assert count_of(second, "#ff7f0e") > 500
    assert count_of(second, "#2ca02c") == 0, "the same run twice is drawn once"
    assert main(["plot", *words, "--values", "health/duplicates"]) == 0
    assert pixels(two.read_bytes()).shape[0] < pixels(second).shape[0]


def test_a_place_that_is_no_file_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = write_run(tmp_path / "run", entries(5))
    for place in (".", "/", str(tmp_path)):
        assert main(["plot", str(run), "--out", place]) == 2
        assert "is a folder; name a picture in it" in capsys.readouterr().err


def test_what_is_compared() -> None:
    logged = ("loss/d eval/b eval/a images", "loss/d loss/g eval/b eval/a", "eval/b eval/a eval/c")
    histories = [History(dict.fromkeys(names.split(), Curve(np.zeros(1), np.zeros(1)))) for names in logged]
    assert chosen([], histories) == ["loss/d", "loss/g", "eval/a", "eval/b"]
    assert chosen(["loss/g", "eval/c"], histories) == ["loss/g", "eval/c"]
    with pytest.raises(UsageError, match=r"loss/f is in none of the logs; did you mean loss/"):
        chosen(["loss/f"], histories)
    paths = [Path("/r/a/one"), Path("/r/b/one"), Path("/q/b/one"), Path("/r/two")]
    assert labels(paths) == ["a/one", "r/b/one", "q/b/one", "two"]
