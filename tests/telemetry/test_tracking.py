"""A tracker's thread: it holds nothing up, and its failures cost no more than they must."""

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gan.config import Config, TrackConfig
from gan.telemetry import trackers, tracking
from gan.telemetry.trackers import TRACKERS, Service
from gan.telemetry.tracking import Tracker
from tests.conftest import untrained_run


class Fake(Service):
    """A tracker that writes down what it is given, and fails as the test says."""

    keeps_generators = True
    given: list[str]
    broken: str

    def open(self, settings: dict[str, Any], recipe: str) -> bool:
        type(self).given = ["open"]
        return True

    def note(self, what: str) -> None:
        if what == self.broken:
            raise OSError("no room")
        self.given.append(what)

    def log(self, values: trackers.Values) -> None:
        self.note("log")

    def log_video(self, name: str, path: Path, images: int) -> None:
        self.note("video")

    def alert(self, title: str, text: str, level: str) -> None:
        self.note("alert")

    def finish(self) -> None:
        self.note("finish")


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch, config: Config) -> Callable[..., Tracker]:
    def build(broken: str = "", main: bool = True) -> Tracker:
        Fake.given, Fake.broken = [], broken
        accelerator: Any = SimpleNamespace(is_main_process=main)
        return Tracker(accelerator, replace(config, track=TrackConfig(with_="none")), Path("no run"), 0)

    monkeypatch.setitem(TRACKERS, "none", Fake)
    return build


def use(tracker: Tracker) -> None:
    tracker.log({"images": 0})
    tracker.log_video("progress", Path("progress.gif"), 0)
    tracker.alert("Finished", "All of it.", "info")
    tracker.keep_generator(Path("no run"), Path("no run/checkpoints/iteration-00000001"))
    tracker.log({"images": 1})
    tracker.finish()


def test_only_the_main_process_tracks(fake: Callable[..., Tracker]) -> None:
    use(fake(main=False))
    assert Fake.given == []
    use(fake())
    assert Fake.given == ["open", "log", "video", "alert", "log", "finish"]


@pytest.mark.parametrize(
    ("broken", "given"),
    [
        ("log", ["open"]),
        ("video", ["open", "log", "alert", "log", "finish"]),
        ("alert", ["open", "log", "video", "log", "finish"]),
    ],
)
def test_a_failure_is_told_and_costs_no_more_than_it_must(
    broken: str, given: list[str], fake: Callable[..., Tracker], capsys: pytest.CaptureFixture[str]
) -> None:
    use(fake(broken))
    assert Fake.given == given
    told = [line for line in capsys.readouterr().out.splitlines() if "no room" in line]
    assert len(told) == 1
    assert told[0].startswith("none stopped (OSError: no room)" if broken == "log" else "none lacks the")


def test_a_generator_that_cannot_be_kept_is_told(
    fake: Callable[..., Tracker], capsys: pytest.CaptureFixture[str]
) -> None:
    use(fake())
    assert "none lacks the generator (UsageError: no run is not a run folder" in capsys.readouterr().out
    assert Fake.given[-1] == "finish"


def test_the_end_waits_for_an_upload_as_long_as_it_is_large(
    fake: Callable[..., Tracker], monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str], tmp_path: Path,
) -> None:  # fmt: skip
    run = untrained_run(tmp_path / "run")
    hold = threading.Event()
    monkeypatch.setattr(Fake, "keep_generator", lambda self, folder: hold.wait())
    monkeypatch.setattr(tracking, "PATIENCE_S", 0.1)
    waited: list[float] = []
    for rate in (1e9, 1e5):
        monkeypatch.setattr(tracking, "UPLOAD_BYTES_PER_S", rate)
        tracker = fake()
        tracker.keep_generator(run, run / "checkpoints" / "iteration-00000001")
        monkeypatch.setattr(tracker.thread, "join", waited.append)
        tracker.finish()
        assert "none does not answer" in capsys.readouterr().out
        hold.set()
    size = sum(path.stat().st_size for path in (run / "wandb" / "generator-iteration-00000001").iterdir())
    assert waited == pytest.approx([0.1 + size / 1e9, 0.1 + size / 1e5])
