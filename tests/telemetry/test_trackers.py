"""What reaches the trackers: runs of the real script, read back with each tracker's own reader and without a server."""

import json
import os
import shutil
import socket
import subprocess
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from gan import config as configuration
from gan.checkpoint import load
from gan.config import TrackConfig, parse
from gan.errors import UsageError
from gan.export import write_export
from gan.telemetry import trackers
from gan.telemetry.grids import grid
from gan.telemetry.trackers import TRACKERS, check_installed
from gan.trained import read_run
from tests.conftest import ROOT, TINY, assert_same_tensors, checkpoint_of, drawn, run_script

SECRET = "s3cr3t" * 7
EVERY = ("--log-every", 1, "--sample-every", 2, "--checkpoint.every", 2, "--checkpoint.keep", 9)
BATCH = 8
IMAGES = 64
ENTRY: dict[str, Any] = {"iteration": 8, "images": IMAGES, "epoch": 3.2, "loss/d": 0.5, "verdict": "healthy"}


@dataclass(frozen=True)
class Tracked:
    """A run folder, what was printed at each start, and the words of the last one."""

    run: Path
    said: list[str]
    words: list[str]

    @property
    def log(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.run / "log.jsonl").read_text().splitlines()]


def start(run: Path, images: Path, *words: object, cwd: Path | None = None) -> Tracked:
    """A run of the script, without a login, and with secrets that are none of its business."""
    everything = [*TINY, "--data", images, "--out", run, *EVERY, *words]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("WANDB")}
    secrets = {
        "WANDB_API_KEY": SECRET,
        "MY_TOKEN": SECRET,
        "SLURM_JWT": SECRET,
        "SLURM_JOB_ID": "7",
        "HOME": str(run.parent),
    }
    result = run_script(*everything, env=environment | secrets, cwd=cwd)
    assert result.returncode == 0, result.stdout + result.stderr
    assert not {"stopped", "lacks"} & {*result.stdout.split()}
    return Tracked(run, [result.stdout], [*map(str, everything)])


@pytest.fixture(scope="module")
def offline(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Tracked:
    """A run with W&B, of 4 iterations and, from a place beside it, 4 more."""
    run = tmp_path_factory.mktemp("offline") / "a run"
    wandb = ("--track.wandb", "offline", "--track.group", "a sweep", "--track.project", "a project")
    words = (*wandb, "--model.network", "msg", "--channels", 4, "--eval.every", 4)
    first = start(run, images, *words, "--iterations", 4)
    second = start(run, images, *words, "--iterations", 8, "--out", run.name, cwd=run.parent)
    return Tracked(run, [*first.said, *second.said], second.words)


@pytest.fixture(scope="module")
def records(offline: Tracked) -> list[list[dict[str, Any]]]:
    """What W&B will upload of each start."""
    return [inspect(folder) for folder in sorted((offline.run / "wandb").glob("offline-run-*"))]


def inspect(folder: Path) -> list[dict[str, Any]]:
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(folder)]
    read = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert read.returncode == 0, read.stderr
    return [json.loads(line) for line in read.stdout.splitlines()]


def of_kind(records: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [record[kind] for record in records if record["type"] == kind]


def rows(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The history, without W&B's own values."""
    items = [record["item"] for record in of_kind(records, "history")]
    return [{name: value for name, value in item.items() if not name.startswith("_")} for item in items]


def test_wandb_has_every_line_of_the_log_once(offline: Tracked, records: list[list[dict[str, Any]]]) -> None:
    history = [row for start in records for row in rows(start) if "iteration" in row]
    assert [row["iteration"] for row in history] == list(range(1, 9))
    assert history == offline.log
    sections = {name.partition("/")[0] for name in history[3]}
    assert sections == {"iteration", "images", "epoch", "verdict", "loss", "score", "grad_norm", "weights", "health",
                        "eval", "perf", "amp"}  # fmt: skip
    assert {"data_ms", "d_ms", "g_ms", "step_ms", "images_per_second", "memory_mib"} <= {
        name.removeprefix("perf/") for name in history[0]
    }


def test_images_are_the_axis_of_everything_in_wandb(records: list[list[dict[str, Any]]]) -> None:
    for start in records:
        defined = of_kind(start, "metric")
        assert {"glob_name": "*", "step_metric": "images"}.items() <= defined[-1].items()
        assert defined[0]["name"] == "images"
        assert rows(start)
        assert all("images" in row for row in rows(start))


def test_a_restart_is_the_same_wandb_run(offline: Tracked, records: list[list[dict[str, Any]]]) -> None:
    runs = [of_kind(start, "run")[-1] for start in records]
    assert len(runs) == 2
    for run in runs:
        assert run["run_id"] == (offline.run / "wandb" / "id.txt").read_text()
        assert (run["display_name"], run["project"], run["run_group"]) == ("a run", "a project", "a sweep")
        assert (run["job_type"], run["tags"]) == ("train", ["quickstart"])
    for said, folder in zip(offline.said, (offline.run, offline.run.name), strict=True):
        assert said.count(f"wandb sync '{folder}'/wandb/offline-run-*") == 2, "at the start and at the end"


def test_wandb_has_the_pictures_and_the_video(offline: Tracked, records: list[list[dict[str, Any]]]) -> None:
    grids = ["samples", "samples-8px", "samples-4px", "samples-raw"]
    for start, begin in zip(records, (0, 4), strict=True):
        given = [(row["images"], name.removesuffix("._type"), value)
                 for row in rows(start) for name, value in row.items() if name.endswith("._type")]  # fmt: skip
        assert given == [
            (BATCH * begin, "reals", "image-file"),
            *((BATCH * (begin + 2), name, "image-file") for name in grids),
            *((BATCH * (begin + 4), name, "image-file") for name in grids),
            (BATCH * (begin + 4), "walk", "video-file"),
        ]
    folder = sorted((offline.run / "wandb").glob("offline-run-*"))[1]
    for name, original in (("walk", "walk.gif"), ("samples-raw", "samples/iteration-00000008-raw.png")):
        (*_, path) = [row[f"{name}.path"] for row in rows(records[1]) if f"{name}.path" in row]
        with Image.open(folder / "files" / path) as copy, Image.open(offline.run / original) as drawn:
            assert getattr(copy, "n_frames", 1) == getattr(drawn, "n_frames", 1) == (48 if name == "walk" else 1)
            assert (np.asarray(copy.convert("RGBA")) == np.asarray(drawn.convert("RGBA"))).all()


def test_wandb_is_told_of_the_end(records: list[list[dict[str, Any]]]) -> None:
    for start, iterations in zip(records, (4, 8), strict=True):
        (alert,) = of_kind(start, "alert")
        assert (alert["title"], alert["level"]) == (f"finished at iteration {iterations}", "INFO")


def test_wandb_is_told_what_runs_and_where(offline: Tracked, records: list[list[dict[str, Any]]]) -> None:
    """The settings that decide the run, and environment.json."""
    environment = json.loads((offline.run / "environment.json").read_text())
    for start in records:
        (settings,) = [update["update"] for update in of_kind(start, "config") if "seed" in update["update"]]
        assert settings.items() >= environment.items()
        assert (settings["processes"], settings["precision"], settings["images"]) == (1, "no", 20)
        assert (settings["torch"], settings["device"]) == (torch.__version__, "cpu" if not settings["gpus"] else "cuda")
        assert (settings["model.width"], settings["data"]) == (4, offline.words[offline.words.index("--data") + 1])
        assert {"python", "accelerate", "torchvision", "wandb", "commit"} <= settings.keys()
        assert not [name for name in settings if "track" in name or "cache" in name]


def test_no_secret_reaches_wandb_or_the_run_folder(offline: Tracked, records: list[list[dict[str, Any]]]) -> None:
    assert SECRET not in json.dumps(records)
    assert '"slurm_job_id": "7"' in json.dumps(records)
    files = [path for path in offline.run.rglob("*") if path.is_file()]
    assert len(files) > 30
    assert not [path for path in files if SECRET.encode() in path.read_bytes()]


def test_the_generator_is_an_artifact_with_a_model_card(
    offline: Tracked, records: list[list[dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    (artifact,) = of_kind(records[1], "artifact")
    assert artifact["type"] == "model"
    files = {entry["path"]: Path(entry["local_path"]) for entry in artifact["manifest"]["contents"]}
    assert files.keys() == {"model.safetensors", "config.json", "README.md", "samples.png"}
    for name, path in files.items():
        assert (path.is_absolute(), path.name, path.exists()) == (True, name, True)
    assert not list(offline.run.parent.rglob(".local/**/staging/*")), "W&B has not copied it to the home folder"
    _, header, card = files["README.md"].read_text().split("---\n", 2)
    facts = yaml.safe_load(header)
    assert (facts["license"], facts["library_name"]) == ("unknown", "gan-trainer")
    for fact in ("16×16", "images: 20\n", "8 iterations, 0.064 kimg, 3.2 epochs", "loss: non-saturating",
                 "recipe: quickstart", "processes: 1", f"torch {torch.__version__}",
                 checkpoint_of(offline.run, 8).state["trajectory"]["images"]):  # fmt: skip
        assert fact in card
    assert str(offline.run.parent) not in card
    with Image.open(files["samples.png"]) as picture:
        assert (np.asarray(picture) == np.asarray(grid(drawn(offline.run, 64)))).all()
    loaded: dict[str, Any] = {}
    monkeypatch.chdir(files["README.md"].parent)
    exec(card.split("```python\n")[1].split("```")[0], loaded)
    assert loaded["images"].shape == (8, 4, 16, 16)
    expected = checkpoint_of(offline.run, 8).tensors["generator_ema"]
    assert_same_tensors(loaded["G"].network.state_dict(), expected)


def test_the_model_card_has_the_evaluations_of_its_own_checkpoint(offline: Tracked, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(offline.run, run, ignore=shutil.ignore_patterns("wandb"))
    path = run / "checkpoints" / "iteration-00000006"
    entries = [
        {"checkpoint": name, "metric": "swd", "better": "lower", "values": {"swd": value},
         "protocol": {"weights": weights, "real": 20, "fake": 20, "split": "its own images", "data": "/a/b.zip",
                      "seed": 3}}
        for name, weights, value in ((path.name, "ema", 1.5), (path.name, "raw", 2.5), ("iteration-00000004", "ema", 3))
    ]  # fmt: skip
    (run / "evaluation.json").write_text(json.dumps(entries))
    config, found = read_run(run), load(path)
    write_export(run, config, found, tmp_path / "export")
    (section,) = [part for part in (tmp_path / "export" / "README.md").read_text().split("## ") if "Evalu" in part]
    told = [line for line in section.splitlines() if line.startswith("- ")]
    assert told == ["- swd (lower is better): swd 1.5; 20 real images of b.zip (its own images), 20 generated, seed 3"]
    (run / "environment.json").unlink()
    write_export(run, config, found, tmp_path / "bare")
    bare = (tmp_path / "bare" / "README.md").read_text()
    assert "6 iterations, 0.048 kimg\n" in bare
    assert "None" not in bare


def test_online_the_generator_is_uploaded_and_its_folder_removed(images: Path, tmp_path: Path) -> None:
    """To a server that says yes to everything."""
    run = tmp_path / "run"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    serve = [sys.executable, "-m", "tests.faults.wandb_server", port]
    login = {"WANDB_BASE_URL": f"http://127.0.0.1:{port}", "WANDB_API_KEY": 40 * "a", "HOME": str(tmp_path)}
    words = [*TINY, "--data", images, "--out", run, "--iterations", 1, "--track.wandb", "online"]
    with subprocess.Popen(serve, cwd=ROOT, stdout=subprocess.PIPE, text=True) as server:
        result = run_script(*words, env=os.environ | login)
        server.kill()
        asked = server.communicate()[0].splitlines()
    assert result.returncode == 0, result.stderr
    assert result.stdout.count(f"W&B: http://127.0.0.1:{port}/me/gan/runs/") == 2
    assert {f"/upload/{name}" for name in ("README.md", "config.json", "model.safetensors", "samples.png")} <= {*asked}
    assert list((run / "wandb").glob("run-*"))
    assert not list((run / "wandb").glob("generator-*"))


@pytest.fixture(scope="module")
def boards(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Tracked:
    """A run with TensorBoard that goes on from iteration 4, after it has logged 6: as if it had been killed."""
    run = tmp_path_factory.mktemp("boards") / "a run"
    first = start(run, images, "--track.with", "tensorboard", "--iterations", 6)
    shutil.rmtree(run / "checkpoints" / "iteration-00000006")
    second = start(run, images, "--track.with", "tensorboard", "--iterations", 8)
    return Tracked(run, [*first.said, *second.said], second.words)


def test_tensorboard_has_every_line_of_the_log_once(boards: Tracked) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # those of the reader's own imports
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    assert len(list((boards.run / "tensorboard").iterdir())) == 2
    board = EventAccumulator(str(boards.run / "tensorboard"), {"scalars": 0, "images": 0, "tensors": 0})
    board.Reload()
    log = boards.log
    assert [entry["iteration"] for entry in log] == list(range(1, 9))
    for name in (name for name in log[0] if all(isinstance(entry[name], int | float) for entry in log)):
        events = board.Scalars(name)
        assert [event.step for event in events] == [entry["images"] for entry in log], name
        assert [event.value for event in events] == pytest.approx([entry[name] for entry in log], rel=1e-6), name
    assert [event.step for event in board.Images("samples")] == [BATCH * iteration for iteration in (2, 4, 6, 8)]
    with Image.open(boards.run / "samples" / "iteration-00000008.png") as drawn:
        size = board.Images("samples")[-1].width, board.Images("samples")[-1].height
        assert size == drawn.size
    assert "|model.width|4|" in board.Tensors("settings/text_summary")[0].tensor_proto.string_val[0].decode()


def test_tensorboard_is_shown_how_to_look_at_it(boards: Tracked) -> None:
    for said in boards.said:
        assert f"TensorBoard: tensorboard --logdir '{boards.run}'/tensorboard" in said
    assert not (boards.run / "wandb").exists()
    kept = yaml.safe_load((boards.run / "config.yaml").read_text())["track"]
    assert kept["with"] == "tensorboard"


def test_no_tracker_leaves_nothing(images: Path, tmp_path: Path) -> None:
    tracked = start(tmp_path / "run", images, "--track.with", "none", "--track.wandb", "offline", "--iterations", 1)
    assert not {"wandb", "tensorboard"} & {path.name for path in tracked.run.iterdir()}
    assert len(tracked.log) == 1
    assert "W&B" not in tracked.said[0]


def test_a_tracker_is_chosen_in_a_recipe_as_on_the_command_line(tmp_path: Path) -> None:
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("iterations: 1\ntrack: {with: tensorboard, artifact: false}\n")
    chosen = parse(["--recipe", str(recipe)])
    assert chosen.track == TrackConfig(with_="tensorboard", artifact=False)
    recipe.write_text(configuration.as_yaml(chosen))
    assert parse(["--recipe", str(recipe)]).track == chosen.track
    assert parse(["--recipe", str(recipe), "--track.with", "none"]).track.with_ == "none"
    with pytest.raises(UsageError, match="did you mean tensorboard"):
        parse(["--track.with", "tensorbord"])


def test_a_tracker_that_is_not_installed_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trackers, "get_available_trackers", lambda: ["wandb"])
    for name in ("wandb", "none"):
        check_installed(name)
    with pytest.raises(UsageError, match="pip install tensorboard"):
        parse(["--track.with", "tensorboard"])


def test_other_trackers_are_given_numbers() -> None:
    calls: list[tuple[Any, ...]] = []
    inner = SimpleNamespace(log=lambda values, step: calls.append((values, step)), finish=lambda: calls.append(()))
    accelerator: Any = SimpleNamespace(
        init_trackers=lambda *words: calls.append(words), get_tracker=lambda name: {"mlflow": inner}[name]
    )
    service = TRACKERS["mlflow"](accelerator, TrackConfig(with_="mlflow", project="p"), Path("run"), 0)
    assert service.open({"seed": 1, "gpus": ["a"], "init-from": None}, "quickstart")
    service.log(ENTRY)
    service.log_picture("samples", Image.new("L", (1, 1)), 1)
    service.finish()
    numbers = {name: value for name, value in ENTRY.items() if name != "verdict"}
    assert calls == [("p", {"seed": 1, "gpus": "['a']", "init-from": "None"}), (numbers, IMAGES), ()]
