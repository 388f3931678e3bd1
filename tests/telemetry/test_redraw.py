"""The drawing of a run while it trains: it happens, rarely enough, and never holds the run up."""

import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from gan.data.packing import available_cores
from gan.telemetry import redraw
from gan.telemetry.redraw import SHARE, Redraw
from tests.conftest import train


def wait_until_idle(drawing: Redraw) -> None:
    while drawing.busy():
        time.sleep(0.01)


def drawing_by(code: str) -> Redraw:
    drawing = Redraw(Path("a run"))
    drawing.command = [sys.executable, "-S", "-c", code, "a run"]
    return drawing


def end(drawing: Redraw) -> None:
    drawing.conclude()
    drawing.wait()


def test_another_gan_where_a_run_is_started_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "gan").mkdir()
    (tmp_path / "gan" / "__init__.py").write_text("raise SystemExit('the wrong one')")
    words = [*Redraw(Path("nothing here")).command]
    result = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
    assert "there is no run folder nothing here" in result.stderr


def test_a_run_leaves_its_pictures(images: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train("--data", images, "--out", run, "--iterations", 4, "--log-every", 1, "--sample-every", 2,
          "--track.report", "True")  # fmt: skip
    drawn = {"plots/losses.png", "plots/scores.png", "plots/health.png", "progress.gif", "walk.gif", "report.html"}
    assert all((run / name).stat().st_size > 1000 for name in drawn)
    page = (run / "report.html").read_text()
    assert "finished" in page, "it was drawn after the end"
    assert page.count("data:image/gif") == 2


def test_it_rests_in_proportion_to_what_it_took() -> None:
    drawing = drawing_by("import time; time.sleep(0.2)")
    drawing.start()
    assert drawing.process is not None
    assert psutil.Process(drawing.process.pid).nice() == 19
    first = drawing.process
    drawing.start()
    assert drawing.process is first, "one at a time"
    wait_until_idle(drawing)
    assert drawing.rested_at - time.monotonic() > 0.1 / SHARE / available_cores()
    drawing.start()
    assert drawing.process is None
    end(drawing)
    assert drawing.process is None


def test_one_that_fails_is_told_and_no_more(capsys: pytest.CaptureFixture[str]) -> None:
    drawing = drawing_by("raise SystemExit(3)")
    end(drawing)
    assert "gan report 'a run' says why" in capsys.readouterr().out
    end(drawing)
    assert capsys.readouterr().out == "", "once is enough"
    drawing.command = ["/no/such/program"]
    end(drawing)


def test_one_that_hangs_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redraw, "PATIENCE_S", 0.3)
    drawing = drawing_by("import time; time.sleep(60)")
    began = time.monotonic()
    end(drawing)
    assert time.monotonic() - began < 5
    drawing.start()
    assert drawing.process is None, "nothing more after the end"


def test_a_stop_takes_it_along() -> None:
    drawing = drawing_by("import time; time.sleep(60)")
    drawing.start()
    process = drawing.process
    assert isinstance(process, subprocess.Popen)
    drawing.stop()
    assert process.returncode == -9
