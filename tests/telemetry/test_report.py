"""`gan report` and `gan plot`: what is drawn from the files of a run, whatever is missing in them or amiss."""

import base64
import io
import json
import subprocess
import sys
import time
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gan.cli import main
from gan.telemetry.animation import CAPTION, LIMIT_BYTES
from gan.telemetry.report import write_report
from tests.telemetry.runs import entries, write_grid, write_run


class Page(HTMLParser):
    """What a page shows, and everything that it would fetch or run. Raises for tags that do not match."""

    def __init__(self, path: Path):
        super().__init__()
        self.text, self.images, self.tags, self.links = "", list[str](), set[str](), list[str]()
        self.open: list[str] = []
        self.feed(path.read_text("utf-8"))
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if tag not in ("meta", "img"):
            self.open.append(tag)
        for name, value in attrs:
            assert not name.startswith("on")
            if name in ("src", "href", "srcset", "data", "action"):
                (self.images if tag == "img" else self.links).append(value or "")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def picture(self, number: int) -> Image.Image:
        return Image.open(io.BytesIO(base64.b64decode(self.images[number].partition("base64,")[2])))


def test_a_report_is_one_whole_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = write_run(tmp_path / "my run", entries(400, collapse=0.7), grids=3, status={"state": "failed", "iteration": 9,
                    "total": 77, "reason": "out <of> memory"})  # fmt: skip
    write_grid(run / "samples" / "iteration-00000150-8px.png", 7, 8)
    write_grid(run / "samples" / "iteration-00000100-raw.png", 8)  # of an older grid
    values = {"swd": 12.3456, "swd_16": None}
    (run / "evaluation.json").write_text(json.dumps([{"checkpoint": "iteration-00000099", "values": values}, 3]))
    write_report(run)
    assert capsys.readouterr().out == f"{run}/report.html\n"
    page = Page(run / "report.html")
    assert page.links == []
    assert not {"script", "link", "iframe", "object", "form"} & page.tags
    assert all(image.startswith("data:image/") for image in page.images)
    source = (run / "report.html").read_text()
    assert "http" not in source
    assert "url(" not in source
    shown = [(16 * 4,) * 2, (16 * 4,) * 2, (192, 192 + CAPTION), (8 * 4,) * 2]  # newest, reals, over time, coarser
    assert [page.picture(number).size for number in range(4)] == shown
    for number, seed in ((0, 2), (1, 1000)):
        expected = np.random.default_rng(seed).integers(0, 256, (64, 64, 3), np.uint8)
        assert np.array_equal(np.asarray(page.picture(number)), expected)
    for number, name in ((4, "losses"), (5, "scores"), (6, "health")):
        content = (run / "plots" / f"{name}.png").read_bytes()
        assert base64.b64encode(content).decode() in page.images[number]
    assert len(page.images) == 7
    for text in ("my run", "failed", "out <of> memory", "20000 / 77", "mode collapse", "12.35", "eval/swd", "sprites",
                 "python3.11.7", f"gan sample '{run}' --out samples.png", f"gan evaluate '{run}'"):  # fmt: skip
        assert text in page.text, text
    assert "mode collapse896 – 128014000 – 20000" in page.text, "from the entry before the first, to the last"
    assert sorted(path.name for path in (run / "plots").iterdir()) == ["health.png", "losses.png", "scores.png"]
    assert not [path for path in run.iterdir() if path.name.startswith(".")]


def test_what_the_files_say_is_shown_and_never_obeyed(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script><img src=http:evil onerror=x> '\"$title &amp; $\\frac"
    log = [{**entry, "verdict": evil, f"eval/{evil}": 0.5, "loss/d": 0.1} for entry in entries(3)]
    status: dict[str, Any] = {"state": evil, "iteration": 1, "total": evil, "reason": evil}
    run = write_run(tmp_path / f"{evil.replace('/', '∕')}", log, status=status)
    (run / "config.yaml").write_text(json.dumps({"data": evil, evil: evil}))
    (run / "environment.json").write_text(json.dumps({evil: [evil]}))
    (run / "evaluation.json").write_text(json.dumps([{"checkpoint": evil, "values": {evil: evil}, "better": evil}]))
    write_report(run)
    page = Page(run / "report.html")
    assert "script" not in page.tags
    assert len(page.images) == 3
    assert page.text.count("<script>alert(1)") >= 8
    assert page.text.count("$title &amp; $\\frac") >= 8, "not escaped twice, not filled in"


def test_a_part_without_its_file_is_left_out(tmp_path: Path) -> None:
    entry = {"iteration": 50, "images": 3200, "loss/d": 1.0, "perf/images_per_second": 123.0}
    run = write_run(tmp_path / "run", [entry])
    for name in ("config.yaml", "environment.json", "status.json"):
        (run / name).unlink()
    (run / "samples").rmdir()
    write_report(run)
    page = Page(run / "report.html")
    assert len(page.images) == 1
    assert "123" in page.text
    for title in ("Settings", "Environment", "Evaluations", "Samples", "Health"):
        assert title not in page.text
    assert [path.name for path in (run / "plots").iterdir()] == ["losses.png"]
    (run / "log.jsonl").write_text('{"iteration": 1, "images": 64, "score/real": 0.5}\n')
    write_report(run)
    assert [path.name for path in (run / "plots").iterdir()] == ["scores.png"], "no picture of another log is left"


@pytest.mark.parametrize(
    "rubbish", ["[" * 100_000, "5", "null", "[3]", '"x"', '{"state": [1], "a": {"b": "c"}}', "\x00"]
)
def test_files_full_of_rubbish(rubbish: str, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", entries(2), grids=1)
    for name in ("config.yaml", "environment.json", "status.json", "evaluation.json"):
        (run / name).write_text(rubbish)
    (run / "log.jsonl").write_text(f'{rubbish}\n{{"iteration": 1e999}}\n{{"iteration": 3}}\n{{"iteration": 4, "images":'
                                   f' "x"}}\n{json.dumps(entries(1)[0])}\n{{"iteration": 100, "ima')  # fmt: skip
    write_report(run)
    assert "3.2kimg" in Page(run / "report.html").text


def test_a_run_without_a_log_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = write_run(tmp_path / "run", [])
    for folder, told in ((run, "nothing in its log yet"), (tmp_path / "none", "there is no run folder")):
        assert main(["report", str(folder)]) == 2
        errors = capsys.readouterr().err
        assert told in errors
        assert errors.count("\n") == 1
    assert not (run / "report.html").exists()
    assert main(["report", str(run), "--fast"]) == 2
    assert "Unrecognized options: --fast" in capsys.readouterr().err


def test_large_grids_make_a_page_that_can_be_sent(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", entries(3), grids=4, side=300)
    for suffix in ("raw", "600px"):
        write_grid(run / "samples" / f"iteration-00000200-{suffix}.png", 1, 300)
    write_report(run)
    assert (run / "progress.gif").stat().st_size < 1.1 * LIMIT_BYTES
    assert (run / "report.html").stat().st_size < 10_000_000
    assert max(Page(run / "report.html").picture(0).size) == 1024


def test_a_long_log_takes_seconds(tmp_path: Path) -> None:
    lines = [json.dumps(entry) for entry in entries(1000)]
    run = write_run(tmp_path / "run", [])
    (run / "log.jsonl").write_text("\n".join(lines * 100))
    began = time.process_time()
    write_report(run)
    assert time.process_time() - began < 10


@pytest.mark.parametrize("command", ["report", "runs", "plot"])
def test_torch_is_not_imported(command: str, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", entries(3), grids=1)
    more = [run, "--out", tmp_path / "plot.png"] if command == "plot" else [tmp_path if command == "runs" else run]
    words = [sys.executable, "-X", "importtime", "-m", "gan", command, *map(str, more)]
    result = subprocess.run(words, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    imported = {line.rpartition("|")[2].strip() for line in result.stderr.splitlines()}
    assert "tyro" in imported
    assert not {"torch", "matplotlib.pyplot"} & imported
