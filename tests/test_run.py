"""Around the loop: what is refused leaves nothing behind, what breaks says so."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from accelerate import Accelerator

from gan.config import Config, EvalConfig
from gan.errors import UsageError
from gan.run import check_places, train
from gan.run_folder import RunFolder
from tests.conftest import TINY, run_script


@pytest.mark.parametrize(
    ("words", "status", "sentence"),
    [
        (["--recipe", "quickstrat"], 2, "did you mean quickstart?"),
        (["--data", "nowhere"], 2, "there is no 'nowhere'"),
        (["--batch-size", "21"], 2, "has 20 images, fewer than one batch of 21"),
        (["--out", "/proc/run"], 2, "cannot write to the run folder /proc/run"),
        (["--resume", "nowhere"], 2, "--resume nowhere: there is no checkpoint"),
        (["--data", "torchvision:CIFAR10"], 1, "could not get torchvision:CIFAR10"),
    ],
)
def test_faults_are_one_sentence(words: list[str], status: int, sentence: str, images: Path, tmp_path: Path) -> None:
    start = [*TINY, "--data", images, "--out", tmp_path / "run", "--iterations", 1]
    proxy = {
        name: "http://127.0.0.1:9" for name in ("http_proxy", "https_proxy")
    }  # no network, even where there is one
    result = run_script(*start, *words, env={**os.environ, **proxy})
    assert result.returncode == status
    (line,) = [line for line in result.stderr.splitlines() if line.strip()]
    assert line.startswith("error: ")
    assert sentence in line


def test_a_refused_command_leaves_nothing_behind(images: Path, tmp_path: Path) -> None:
    """Through the launcher, which adds a traceback of its own and turns every status into 1."""
    words = ("--data", "nowhere", "--out", tmp_path / "run")
    result = run_script(*TINY, *words, launcher=("--num_processes", "1"))
    assert result.returncode == 1
    assert "error: there is no 'nowhere'" in result.stderr
    assert os.listdir(tmp_path) == []
    quiet = run_script(*TINY, *words, launcher=("--quiet",))
    assert "Traceback" not in quiet.stderr
    result = run_script(*TINY, "--data", images, "--out", images / "run", "--iterations", 1)
    assert "lies inside the images' folder" in result.stderr
    assert not (images / "run").exists()


def test_the_images_folder_is_known_by_any_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "images").mkdir()
    inside = RunFolder(tmp_path / "images" / "run")
    for data in ("~/images", str(tmp_path / "images"), f"{tmp_path}/images/../images"):
        with pytest.raises(UsageError, match="lies inside the images' folder"):
            check_places(Config(data=data), inside)
    monkeypatch.chdir(tmp_path / "images")  # which "" does not mean
    for data in ("sprites", "", "n" * 300):
        check_places(Config(data=data), inside)


def test_a_run_that_breaks_says_so_in_its_status(images: Path, tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").mkdir()  # the log cannot be written
    result = run_script(*TINY, "--data", images, "--out", tmp_path, "--iterations", 1)
    assert result.returncode == 1
    status = json.loads((tmp_path / "status.json").read_text())
    assert status["state"] == "failed"
    assert "log.jsonl" in status["reason"]


def test_a_single_process_talks_to_nobody(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or gtx.yaml would have NCCL set up for one GPU, memory and all."""

    def refuse(*words: object) -> None:
        raise AssertionError

    for name in ("gather", "reduce", "wait_for_everyone"):
        monkeypatch.setattr(Accelerator, name, refuse)
    train(replace(config, eval=EvalConfig(every=3, count=20)))
    assert json.loads((Path(str(config.out)) / "status.json").read_text())["state"] == "finished"
