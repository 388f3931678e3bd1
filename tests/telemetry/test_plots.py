"""The pictures of a run's curves: every curve, the lines they are compared with, and the verdicts."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gan.telemetry import plots
from gan.telemetry.history import Curve, History, read_history
from gan.telemetry.plots import VERDICTS, equilibrium, scale_for
from tests.telemetry.runs import Entry, count_of, entries, pixels, write_run


def read(tmp_path: Path, log: list[Entry]) -> History:
    return read_history(write_run(tmp_path / f"run-{len(list(tmp_path.iterdir()))}", log))


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
