"""Generators in other formats draw the same images."""

import os
import sys
import zipfile
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from gan import load
from gan.config import ModelConfig
from gan.formats import FORMATS
from gan.telemetry.grids import to_uint8
from tests.conftest import gan, untrained_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return untrained_run(tmp_path_factory.mktemp("formats") / "run", channels=4)


@pytest.fixture(scope="module")
def latents() -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(5).standard_normal((7, 8))).float()


@pytest.mark.parametrize(
    "model",
    [
        ModelConfig(z_dim=8, width=4),
        ModelConfig(z_dim=8, width=4, network="msg", norm_g="instance"),
        ModelConfig(z_dim=8, width=4, stem="dense", kernel=5),
        ModelConfig(z_dim=8, width=4, norm_g="layer"),
    ],
    ids=["dcgan", "msg", "dense", "layer"],
)
def test_other_formats_draw_the_same_images(model: ModelConfig, latents: torch.Tensor, tmp_path: Path) -> None:
    """For any number of images; and torch's file has no pickle in it."""
    run = untrained_run(tmp_path / "run", model=model, channels=1)
    assert gan("export", run, tmp_path / "out", "--formats", "onnx", "torch-export") == 0
    assert {"model.onnx", "model.pt2"} <= {*os.listdir(tmp_path / "out")}
    with torch.no_grad():
        expected = load(run)(latents)
    session = onnxruntime.InferenceSession(tmp_path / "out" / "model.onnx", providers=["CPUExecutionProvider"])
    (images,) = session.run(["images"], {"z": latents.numpy()})
    torch.testing.assert_close(torch.from_numpy(images), expected, rtol=0, atol=1e-4)
    assert np.abs(to_uint8(torch.from_numpy(images)).astype(int) - to_uint8(expected)).max() <= 1
    program = torch.export.load(tmp_path / "out" / "model.pt2").module()
    torch.testing.assert_close(program(latents), expected, rtol=0, atol=1e-5)
    with zipfile.ZipFile(tmp_path / "out" / "model.pt2") as archive:
        pickles = [name for name in archive.namelist() if archive.read(name)[:2] in (b"PK", b"\x80\x02")]
    assert not pickles


def test_a_format_that_gives_other_images_is_not_kept(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def wrong(G: torch.nn.Module, z: torch.Tensor, path: Path):  # type: ignore[no-untyped-def]
        path.touch()
        return lambda z: G(z) + 2.1 / 127.5  # two levels

    monkeypatch.setitem(FORMATS, "onnx", ("model.onnx", wrong))
    assert gan("export", run, tmp_path / "out", "--formats", "onnx") == 1
    assert "draws other images, up to" in capsys.readouterr().err
    assert os.listdir(tmp_path) == []


def test_what_onnxruntime_cannot_do_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = untrained_run(tmp_path / "run", dtype="float64")
    assert gan("export", run, tmp_path / "out", "--formats", "onnx") == 1
    told = capsys.readouterr().err
    assert "--formats onnx cannot hold this generator" in told
    assert told.count("\n") == 1
    assert gan("export", run, tmp_path / "out", "--formats", "torch-export") == 0
    assert load(tmp_path / "out")(torch.ones(1, 8)).dtype == torch.float64


def test_without_its_library_a_format_says_what_to_install(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    assert gan("export", run, tmp_path / "out", "--formats", "onnx") == 2
    assert "pip install onnx onnxscript onnxruntime" in capsys.readouterr().err
