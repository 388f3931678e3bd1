"""What is recorded of a run while it trains, and the alarms it raises."""

import json
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from accelerate import Accelerator

from gan.config import Config
from gan.errors import RunError
from gan.run import train
from gan.run_folder import RunFolder
from gan.telemetry.health import Judge
from gan.telemetry.recorder import Recorder
from gan.telemetry.tracking import Tracker
from tests.conftest import log_of


def test_a_run_that_diverges_is_called_so(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """With gradients that are not finite from the start: the run ends before anything else is logged."""
    alerts: list[tuple[str, str]] = []
    monkeypatch.setattr(Tracker, "alert", lambda tracker, title, text, level: alerts.append((title, level)))
    rate = replace(config.optim_g, lr=1e30, method="adam")
    with pytest.raises(RunError, match="not been finite"):
        train(replace(config, dtype="float32", iterations=100, log_every=50, max_skipped=5, optim_g=rate))
    assert config.out is not None
    (entry,) = log_of(config.out)
    assert entry["verdict"] == "diverged"
    assert entry["amp/skipped_d"] + entry["amp/skipped_g"] >= 5
    assert alerts == [("diverged", "warn"), (f"failed at iteration {entry['iteration']}", "error")]


def test_an_alarm_is_not_repeated_at_once(tmp_path: Path, config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    alerts: list[tuple[str, str]] = []
    monkeypatch.setattr(Tracker, "alert", lambda tracker, title, text, level: alerts.append((title, text)))
    verdicts = iter(["healthy", "mode collapse", "mode collapse", "healthy", "mode collapse", "diverged", "healthy",
                     *["mode collapse"] * 9, "diverged", "diverged"])  # fmt: skip
    monkeypatch.setattr(Judge, "__call__", lambda judge, entries, best: next(verdicts))
    recorder = Recorder(config, Accelerator(cpu=True), RunFolder(tmp_path), 20, 0, 10000, Judge(0.69))
    for number in range(1, 19):
        recorder.enter({"iteration": 500 * number}, None)
    told = [(title, text.partition(":")[0].rpartition(" ")[2]) for title, text in alerts]
    assert told == [("mode collapse", "1000"), ("diverged", "3000"), ("mode collapse", "4000"), ("diverged", "8500")]
    recorder.close("preempted", 4001, "Stopped by SIGTERM.")
    assert alerts[4:] == [("preempted at iteration 4001", "Stopped by SIGTERM.")]


def test_a_fault_that_comes_back_and_lasts_is_told_again(
    tmp_path: Path, config: Config, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Too soon to be told at once, but not for ever."""
    verdicts = iter(["mode collapse", "healthy", *["mode collapse"] * 20, "healthy"])
    monkeypatch.setattr(Judge, "__call__", lambda judge, entries, best: next(verdicts))
    recorder = Recorder(config, Accelerator(cpu=True), RunFolder(tmp_path), 20, 0, 20000, Judge(0.69))
    for number in range(1, 24):
        recorder.enter({"iteration": 500 * number}, None)
    told = re.findall(r"(Warning|Healthy).* iteration (\d+)", capsys.readouterr().out)
    assert told == [("Warning", "500"), ("Healthy", "1000"), ("Warning", "3000"), ("Healthy", "11500")]


def test_lines_that_the_log_has_no_room_for_are_made_up_for_at_the_end(tmp_path: Path, config: Config) -> None:
    recorder = Recorder(config, Accelerator(cpu=True), RunFolder(tmp_path), 20, 0, 10000, Judge(0.69))
    recorder.unwritten.append('{"iteration": 1}\n')
    recorder.close("preempted", 1, "Stopped by SIGTERM.")
    assert log_of(tmp_path) == [{"iteration": 1}]


@pytest.mark.parametrize(("rate", "told"), [(0.25, "0.25"), (12.3, "12"), (12345.6, "12,346")])
def test_the_rate_can_be_read_on_slow_machines_and_on_fast_ones(
    rate: float, told: str, tmp_path: Path, config: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    recorder = Recorder(config, Accelerator(cpu=True), RunFolder(tmp_path), 20, 0, 20, Judge(0.69))
    recorder.show({"iteration": 1, "loss/d": 1.0, "loss/g": 2.0, "perf/images_per_second": rate}, recorder.began)
    assert f" {told} images/s, loss D 1.000, loss G 2.000, " in capsys.readouterr().out


def test_figures_are_of_the_interval_and_what_is_left_of_the_whole(
    tmp_path: Path, config: Config, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """From iteration 10 of 40, 4 in two seconds and 16 in four, of 8 images each: 20 in 6 s leave 3 s for 10."""
    clock = iter([100.0, 102.0, 106.0])
    monkeypatch.setattr("gan.telemetry.recorder.time", SimpleNamespace(perf_counter=lambda: next(clock)))
    recorder = Recorder(config, Accelerator(cpu=True), RunFolder(tmp_path), 20, 10, 40, Judge(0.69))
    for iteration, slope in ((14, 6.0), (30, 1.0)):
        values = {"loss/d": 1.0, "loss/g": 2.0, "grad_norm/d": 2.0, "grad_norm/g": slope}
        recorder.add({name: torch.tensor(value) for name, value in values.items()})
        recorder.log(iteration, {})
    figures = ("perf/images_per_second", "perf/iteration_ms", "health/gradient_ratio", "images", "epoch")
    found = [[entry[name] for name in figures] for entry in log_of(tmp_path)]
    assert found == [[16, 500, 3, 112, 5.6], [32, 250, 0.5, 240, 12]]
    assert re.findall(r"iteration (\d+)/40, .*, (.*) left", capsys.readouterr().out) == [
        ("14", "0:00:13"), ("30", "0:00:03")
    ]  # fmt: skip


@pytest.mark.parametrize("stop", [0, 1, 2, 3, 5, 6, 12])
def test_a_run_that_goes_on_has_told_what_it_told(
    stop: int, tmp_path: Path, config: Config, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And tells the rest, wherever it was stopped."""
    said = ["mode collapse", "healthy", *["mode collapse"] * 10, "healthy"]
    monkeypatch.setattr(Judge, "__call__", lambda judge, entries, best: said[entries[-1]["iteration"] // 500 - 1])
    folder = RunFolder(tmp_path)
    for first, last in ((0, stop), (stop, len(said))):
        recorder = Recorder(config, Accelerator(cpu=True), folder, 20, 500 * first, 20000, Judge(0.69))
        for number in range(first + 1, last + 1):
            recorder.enter(entry := {"iteration": 500 * number}, None)
            with open(folder.log, "a") as log:
                log.write(json.dumps(entry) + "\n")
    told = re.findall(r"(Warning|Healthy).* iteration (\d+)", capsys.readouterr().out)
    assert told == [("Warning", "500"), ("Healthy", "1000"), ("Warning", "3000"), ("Healthy", "6500")]
