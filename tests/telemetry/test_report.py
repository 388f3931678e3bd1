"""`gan report` and `gan plot`: what is drawn from the files of a run, whatever is missing in them or amiss."""

import base64
import io
import json
import subprocess
import sys
import time
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gan.cli import main
from gan.errors import UsageError
from gan.telemetry import plots
from gan.telemetry.animation import CAPTION, FRAMES, LIMIT_BYTES, animation
from gan.telemetry.compare import chosen, labels
from gan.telemetry.history import Curve, History, read_history, smoothed, thinned
from gan.telemetry.plots import VERDICTS, equilibrium, scale_for
from gan.telemetry.report import write_report
from tests.telemetry.runs import Entry, entries, write_grid, write_run


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


def read(tmp_path: Path, log: list[Entry]) -> History:
    return read_history(write_run(tmp_path / f"run-{len(list(tmp_path.iterdir()))}", log))


def pixels(png: bytes | None) -> np.ndarray:
    assert png is not None
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)


def count_of(png: bytes | None, colour: str, alpha: float = 1) -> int:
    """How many pixels have a colour, laid over white."""
    level = np.array([int(colour[at : at + 2], 16) for at in (1, 3, 5)])
    return int((np.abs(pixels(png) - (255 + alpha * (level - 255))).max(-1) <= 3).sum())


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
    run = write_run(tmp_path / "run", [{"iteration": 50, "images": 3200, "loss/d": 1.0, "images_per_second": 123.0}])
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


ODD: dict[str, Any] = {
    "null": None, "zero": 0, "negative": -3.5, "huge": 1e300, "infinite": float("inf"), "long": 10**400,
    "tiny": 1e-320,
}  # fmt: skip


@pytest.mark.parametrize("name", ODD)
def test_odd_values(name: str, tmp_path: Path) -> None:
    """Every other entry, or the only one. Warnings are errors in these tests, so none is given either."""
    log = entries(40)
    for entry in log[::2]:
        entry.update({key: ODD[name] for key in entry if key not in ("iteration", "images")})
    history, alone = read(tmp_path, log), read(tmp_path, log[:1])
    for picture in (plots.losses_plot(history, {}), plots.scores_plot(alone), plots.health_plot(history)):
        assert picture is None or len(np.unique(pixels(picture))) > 10
    read(tmp_path, [{**log[1], "verdict": 3, "loss/d": "0.5", "loss/g": True, "eval/x": {}}])


def test_both_curves_and_the_place_of_equilibrium_are_drawn(tmp_path: Path) -> None:
    def log(**values: float) -> History:
        return read(tmp_path, [{"iteration": number, "images": number * 1000, **values} for number in range(100)])

    both = plots.losses_plot(log(**{"loss/d": 0.5, "loss/g": 2.0}), {})
    assert count_of(both, plots.BLUE) > 500
    assert count_of(both, plots.RED) > 500
    assert count_of(plots.losses_plot(log(**{"loss/g": 2.0}), {}), plots.BLUE) == 0
    grey = [count_of(plots.losses_plot(log(**{"loss/d": 2.0, "loss/penalty": value}), {}), plots.GREY)
            for value in (0.0, 1.0)]  # fmt: skip
    assert grey[0] + 300 < grey[1], "a penalty that is always 0 is none"
    hinge = {"objective": {"loss": "hinge"}}
    dark = [count_of(plots.losses_plot(log(**{"loss/d": 0.5, "loss/g": 2.0}), config), "#5f6368")
            for config in ({}, hinge)]  # fmt: skip
    assert dark[0] > dark[1] + 300
    scores = [plots.scores_plot(log(**{"score/real": 0.7, "score/fake": value})) for value in (0.2, -0.2)]
    assert count_of(scores[0], "#5f6368") > count_of(scores[1], "#5f6368") + 300, "0.5, where they are probabilities"


@pytest.mark.parametrize(
    ("objective", "expected"),
    [
        ({}, [0.6931]),
        ({"loss": "non-saturating", "halve-d": False}, [1.3863, 0.6931]),
        ({"loss": "saturating"}, [0.6931, -0.6931]),
        ({"loss": "relativistic"}, [0.6931]),
        ({"loss": "relativistic", "halve-d": True}, [0.3466, 0.6931]),
        ({"loss": "wasserstein"}, []),
    ],
)
def test_the_losses_at_equilibrium_are_those_of_the_trainer(objective: dict[str, Any], expected: list[float]) -> None:
    assert [value for value, _ in equilibrium(objective)] == pytest.approx(expected, abs=1e-4)


def test_scales() -> None:
    def kind(*values: float) -> str:
        return scale_for([Curve(np.arange(len(values)), np.array(values))]).kind

    assert kind(1, 2, 3, float("nan")) == "linear"
    assert kind(0.001, 0.1, 5) == "log"
    assert kind(-1, 1, 2, -2, 5000) == "symlog"
    assert kind(0, 0) == kind(float("nan")) == kind(-1, 1, 2) == "linear"


@pytest.mark.parametrize(
    ("group", "draw"), [("loss", lambda h: plots.losses_plot(h, {})), ("grad_norm", plots.health_plot)]
)
def test_decades_are_drawn_apart(group: str, draw: Callable[[History], bytes | None], tmp_path: Path) -> None:
    """On a linear axis up to 1000, the curves would lie on each other."""
    log: list[Entry] = [{"iteration": number, "images": number * 1000, f"{group}/d": 0.01, f"{group}/g": 1.0}
                        for number in range(100)]  # fmt: skip
    log[70][f"{group}/g"] = 1000.0
    picture = pixels(draw(read(tmp_path, log)))[:, 100:600]
    rows = {}
    for colour in (plots.BLUE, plots.RED):
        level = [int(colour[at : at + 2], 16) for at in (1, 3, 5)]
        rows[colour] = np.nonzero((picture == level).all(-1))[0].mean()
    assert rows[plots.BLUE] > rows[plots.RED] + 20


def test_the_health_picture_shows_the_verdicts_where_they_held(tmp_path: Path) -> None:
    history = read(tmp_path, entries(200, collapse=0.5, diverge=0.75))
    held = [(span.verdict, span.begin, span.end) for span in history.spans]
    assert held == [("starting", 0, 500), ("healthy", 500, 3050), ("discriminator winning", 3050, 3500),
                    ("healthy", 3500, 5000), ("mode collapse", 5000, 7500), ("diverged", 7500, 10000)]  # fmt: skip
    assert [span.begin_kimg for span in history.spans] == pytest.approx([span.begin * 0.064 for span in history.spans])
    picture = plots.health_plot(history)
    shares = {span.verdict: 0 for span in history.spans}
    for span in history.spans:
        shares[span.verdict] += span.end - span.begin
    counts = {verdict: count_of(picture, VERDICTS[verdict]) for verdict in shares}
    for verdict, share in shares.items():
        assert counts[verdict] / sum(counts.values()) == pytest.approx(share / 10_000, abs=0.04)
        assert count_of(picture, VERDICTS[verdict], alpha=0.13) > 20 * share
    unknown = read(tmp_path, [{"iteration": 1, "images": 64, "verdict": "who knows"}])
    assert count_of(plots.health_plot(unknown), plots.OTHER) > 5000


def test_few_points_with_no_peak_lost() -> None:
    values = np.zeros(100_000)
    values[[31_337, 70_000]] = 9, -7
    values[50_000:50_500] = np.nan
    curve = thinned(Curve(np.arange(100_000.0), values))
    assert len(curve.values) < 2000
    assert curve.kimg[[0, -1]].tolist() == [0, 99_999]
    assert (np.diff(curve.kimg) > 0).all()
    assert curve.values[curve.kimg == 31_337].tolist() == [9]
    assert curve.values[curve.kimg == 70_000].tolist() == [-7]
    assert np.isnan(curve.values).any(), "a gap stays a gap"


def test_smoothing_is_a_mean_that_stays_in_place() -> None:
    rng, kimg = np.random.default_rng(0), np.arange(5000.0)
    noisy = Curve(kimg, kimg / 1000 + rng.normal(size=5000))
    noisy.values[100] = np.nan
    smooth = smoothed(noisy, lambda values: values, lambda values: values)
    inner = slice(25, -25)
    assert np.abs(smooth.values - smooth.kimg / 1000)[inner].max() < 0.4
    levels = smoothed(Curve(kimg, 10.0 ** (kimg / 1000)), np.log10, lambda values: 10**values)
    assert np.log10(levels.values)[inner] == pytest.approx(levels.kimg[inner] / 1000, abs=0.01)


def test_progress_is_an_endless_film_of_the_grids(tmp_path: Path) -> None:
    samples = tmp_path / "samples"
    samples.mkdir()
    assert animation(samples) is None
    for number in range(100):
        Image.new("RGB", (600, 300), (number, 0, 255 - number)).save(samples / f"iteration-{number * 10:08d}.png")
    Image.new("RGB", (9, 9), "lime").save(samples / "iteration-00000500-32px.png")
    Image.new("RGB", (9, 9), "lime").save(samples / "iteration-500.png")
    film = Image.open(io.BytesIO(animation(samples) or b""))
    assert (film.n_frames, film.size, film.info["loop"]) == (FRAMES, (512, 256 + CAPTION), 0)  # type: ignore[attr-defined]
    levels, times, captions = [], [], set()
    for number in range(FRAMES):
        film.seek(number)
        still = film.convert("RGB")
        levels.append(still.getpixel((250, 100))[0])  # type: ignore[index]
        times.append(film.info["duration"])
        captions.add(still.crop((0, 256, *still.size)).tobytes())
    assert levels == np.linspace(0, 99, FRAMES).astype(int).tolist()
    assert len(set(times[:-1])) == 1
    assert times[-1] > 5 * times[0]
    assert len(captions) == FRAMES


def test_grids_of_every_kind_in_one_film(tmp_path: Path) -> None:
    clear = Image.new("RGBA", (200, 200), (255, 0, 0, 0))
    clear.paste((255, 0, 0, 255), (0, 0, 100, 200))
    pictures = [Image.new("L", (200, 200), 7), clear, Image.new("RGB", (100, 200), "blue"), Image.new("1", (200, 200))]
    for number, picture in enumerate(pictures):
        picture.save(tmp_path / f"iteration-{number * 2 + 1:08d}.png")
    whole = (tmp_path / "iteration-00000001.png").read_bytes()
    for number, content in ((0, b""), (4, whole[:-30]), (9, b"<html>"), (6, whole[:60])):
        (tmp_path / f"iteration-{number:08d}.png").write_bytes(content)
    film = Image.open(io.BytesIO(animation(tmp_path) or b""))
    assert (film.n_frames, film.size) == (4, (200, 200 + CAPTION))  # type: ignore[attr-defined]
    seen = []
    for number in range(4):
        film.seek(number)
        seen.append([film.convert("RGB").getpixel((x, 100)) for x in (60, 190)])
    white = (255, 255, 255)
    expected = [[(7, 7, 7)] * 2, [(255, 0, 0), white], [(0, 0, 255), white], [(0, 0, 0)] * 2]
    assert np.abs(np.array(seen) - np.array(expected)).max() <= 2, "but for the choice of 256 colours"


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
    start = ["-m", "gan.telemetry.report"] if command == "report" else ["-m", "gan", command]
    words = [sys.executable, "-X", "importtime", *start, *map(str, more)]
    result = subprocess.run(words, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    imported = {line.rpartition("|")[2].strip() for line in result.stderr.splitlines()}
    assert "tyro" in imported
    assert not {"torch", "matplotlib.pyplot"} & imported


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


def test_what_is_compared() -> None:
    logged = ("loss/d eval/b eval/a images", "loss/d loss/g eval/b eval/a", "eval/b eval/a eval/c")
    histories = [History(dict.fromkeys(names.split(), Curve(np.zeros(1), np.zeros(1)))) for names in logged]
    assert chosen([], histories) == ["loss/d", "loss/g", "eval/a", "eval/b"]
    assert chosen(["loss/g", "eval/c"], histories) == ["loss/g", "eval/c"]
    with pytest.raises(UsageError, match=r"loss/f is in none of the logs; did you mean loss/"):
        chosen(["loss/f"], histories)
    paths = [Path("/r/a/one"), Path("/r/b/one"), Path("/q/b/one"), Path("/r/two")]
    assert labels(paths) == ["a/one", "r/b/one", "q/b/one", "two"]
