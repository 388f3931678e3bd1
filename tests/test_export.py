"""gan export: a folder to hand on, other formats, the hub."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from gan import load
from gan.telemetry.grids import grid
from tests.conftest import ROOT, assert_same_tensors, drawn, gan, untrained_run
from tests.hub_server import TOKEN

LAYOUT = ["README.md", "config.json", "model.safetensors", "samples.png"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return untrained_run(tmp_path_factory.mktemp("export") / "run", channels=4)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_folder_in_the_layout_of_the_hub(run: Path, tmp_path: Path) -> None:
    """With nothing in it that says where it was made; samples are the first images, not picked."""
    assert gan("export", run, tmp_path / "out") == 0
    assert names(tmp_path / "out") == LAYOUT
    assert names(tmp_path) == ["out"]
    with Image.open(tmp_path / "out" / "samples.png") as picture:
        assert picture.mode == "RGBA"
        assert (np.asarray(picture) == np.asarray(grid(drawn(run, 64)))).all()
    assert "(8, 4, 16, 16) in [−1, 1]" in (tmp_path / "out" / "README.md").read_text()


def test_no_file_says_where_it_was_made(run: Path, tmp_path: Path) -> None:
    assert gan("export", run, tmp_path / "out", "--formats", "onnx", "torch-export") == 0
    for path in (tmp_path / "out").iterdir():
        for place in (ROOT, sys.prefix, Path(torch.__file__).parent, tmp_path, Path.home()):
            assert str(place).encode() not in path.read_bytes(), path.name


def test_it_works_offline_on_another_machine(run: Path, tmp_path: Path) -> None:
    """In a process without network and with nothing but the two files."""
    assert gan("export", run, tmp_path / "out") == 0
    (tmp_path / "there").mkdir()
    for name in ("config.json", "model.safetensors"):
        shutil.move(tmp_path / "out" / name, tmp_path / "there" / name)
    code = (
        "import socket, sys, torch; socket.socket.connect = None\n"
        "from gan import TrainedGenerator\n"
        "G = TrainedGenerator.from_pretrained(sys.argv[1])\n"
        "torch.save(G(torch.ones(2, G.z_dim)).detach(), sys.argv[2])"
    )
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hf")}
    subprocess.run(
        [sys.executable, "-c", code, tmp_path / "there", tmp_path / "images"], env=environment, check=True, cwd=ROOT
    )
    images = torch.load(tmp_path / "images", weights_only=True)
    torch.testing.assert_close(images, load(run)(torch.ones(2, 8)), rtol=0, atol=1e-6)


@pytest.mark.parametrize("weights", ["ema", "raw"])
def test_which_weights(run: Path, weights: str, tmp_path: Path) -> None:
    assert gan("export", run, tmp_path / "out", "--weights", weights) == 0
    assert_same_tensors(load(tmp_path / "out").state_dict(), load(run, weights).state_dict())
    assert ("exponential moving average" in (tmp_path / "out" / "README.md").read_text()) == (weights == "ema")


def test_nothing_is_overwritten(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert gan("export", run, tmp_path) == 2
    assert "is there already" in capsys.readouterr().err
    (tmp_path / "file").touch()
    assert gan("export", run, tmp_path / "file" / "out") == 2
    assert "cannot write" in capsys.readouterr().err


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[tuple[dict[str, str], "subprocess.Popen[str]"]]:
    """A hub of our own: what the environment of a process must say for it, and its process."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.hub_server"], stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as it:
        assert it.stdout is not None
        port = it.stdout.readline().strip()
        places = {"HF_ENDPOINT": f"http://127.0.0.1:{port}", "HF_HOME": str(tmp_path / "hf"), "NO_PROXY": "127.0.0.1"}
        yield {**os.environ, **places}, it
        it.kill()


def test_pushed_and_fetched(run: Path, hub: tuple[dict[str, str], "subprocess.Popen[str]"], tmp_path: Path) -> None:
    """Made private, whole, and from_pretrained gives the same generator; then also without the hub."""
    environment, server = hub
    push = [sys.executable, "-m", "gan", "export", str(run), str(tmp_path / "out"), "--push", "me/model"]
    result = subprocess.run(push, env={**environment, "HF_TOKEN": TOKEN}, capture_output=True, text=True, cwd=ROOT)
    assert result.returncode == 0, result.stderr
    assert "/me/model" in result.stdout
    code = (
        "import sys; from gan import TrainedGenerator\n"
        "import safetensors.torch as s\n"
        "options = {'revision': 'v1', 'token': 'mine', 'local_files_only': bool(sys.argv[2])}\n"
        "G = TrainedGenerator.from_pretrained('me/model', **options)\n"
        "s.save_file(G.network.state_dict(), sys.argv[1])"
    )
    for local in ("", "local"):
        fetch = [sys.executable, "-c", code, str(tmp_path / "fetched"), local]
        subprocess.run(fetch, env=environment, check=True, capture_output=True, cwd=ROOT)
        assert (tmp_path / "fetched").read_bytes() == (tmp_path / "out" / "model.safetensors").read_bytes()
        (tmp_path / "fetched").unlink()
        server.kill()
    assert server.stdout is not None
    asked = server.stdout.read().splitlines()
    created = next(json.loads(line.split(" ", 2)[2]) for line in asked if "/api/repos/create" in line)
    assert created.get("private") or created["visibility"] == "private"
    fetched = {line.split()[1].rpartition("/")[2] for line in asked if line.startswith("GET") and "/resolve/" in line}
    assert fetched == {"config.json", "model.safetensors"}
    assert any("/revision/v1" in line and line.endswith("Bearer mine") for line in asked)


def test_a_second_push_takes_away_what_the_first_had_besides(
    run: Path, hub: tuple[dict[str, str], "subprocess.Popen[str]"], tmp_path: Path
) -> None:
    environment, server = hub
    for formats in (["--formats", "torch-export"], []):
        folder = str(tmp_path / f"out{len(formats)}")
        push = [sys.executable, "-m", "gan", "export", str(run), folder, *formats, "--push", "me/model"]
        subprocess.run(push, env={**environment, "HF_TOKEN": TOKEN}, check=True, capture_output=True, cwd=ROOT)
    server.kill()
    assert server.stdout is not None
    left = [line for line in server.stdout.read().splitlines() if line.startswith("holds ")]
    assert "model.pt2" in left[0]
    assert left[1] == f"holds {' '.join(LAYOUT)}"


def test_a_push_that_fails_keeps_the_folder(
    run: Path, hub: tuple[dict[str, str], "subprocess.Popen[str]"], tmp_path: Path
) -> None:
    environment, _ = hub
    push = [sys.executable, "-m", "gan", "export", str(run), str(tmp_path / "out"), "--push", "me/model"]
    for token, status, sentence in ((None, 2, "hf auth login"), ("wrong", 1, "is written, but not pushed")):
        extra = {"HF_TOKEN": token} if token else {}
        result = subprocess.run(push, env={**environment, **extra}, capture_output=True, text=True, cwd=ROOT)
        assert result.returncode == status, result.stderr
        assert sentence in result.stderr
        assert result.stderr.count("\n") == 1
        assert (tmp_path / "out").exists() == (token is not None)
    assert names(tmp_path / "out") == LAYOUT
