"""gan sample: pictures, files, films, neighbours."""

import sys
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image

from gan.config import AugmentConfig, DataOptions
from gan.latents import numbered, parse_mix, truncated
from gan.metrics.comparison import to_rgb
from gan.sample import draw_all, likeness
from gan.telemetry.grids import grid
from gan.trained import load
from tests.conftest import drawn, gan, untrained_run

MODES = {1: "L", 3: "RGB", 4: "RGBA"}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return untrained_run(tmp_path_factory.mktemp("sample") / "run")


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_images_go_out_as_they_came_in(channels: int, tmp_path: Path) -> None:
    """Also from a folder that was carried to another machine, where its data are not."""
    run = untrained_run(tmp_path / "there", channels=channels, data=str(tmp_path / "gone"))
    run = run.rename(tmp_path / "here")
    assert gan("sample", run, "--count", 6, "--out", tmp_path / "new" / "grid.png") == 0
    assert gan("sample", run, "--count", 6, "--each", tmp_path / "each") == 0
    expected = drawn(run, 6)
    with Image.open(tmp_path / "new" / "grid.png") as picture:
        assert (picture.mode, picture.format, picture.size) == (MODES[channels], "PNG", (48, 32))
        assert (np.asarray(picture) == np.asarray(grid(expected))).all()
    files = sorted((tmp_path / "each").iterdir())
    assert [file.name for file in files] == [f"seed0-{index:05d}.png" for index in range(6)]
    for file, image in zip(files, expected, strict=True):
        assert (pixels(file) == image.squeeze()).all()


def test_an_image_for_each_seed(run: Path, tmp_path: Path) -> None:
    """The first of gan sample --seed S, whichever others are drawn with it, and how many."""
    assert gan("sample", run, "--seeds", "0-69", "--each", tmp_path / "many") == 0
    assert gan("sample", run, "--seeds", "69,3", "5", "--each", tmp_path / "few") == 0
    assert len(list((tmp_path / "many").iterdir())) == 70
    for seed in (69, 3, 5):
        name = f"seed{seed}-00000.png"
        assert (tmp_path / "few" / name).read_bytes() == (tmp_path / "many" / name).read_bytes()
        assert (pixels(tmp_path / "few" / name) == drawn(run, 1, seed=seed)[0]).all()
    assert len({path.read_bytes() for path in (tmp_path / "many").iterdir()}) == 70


def test_raw_weights_and_truncation_change_the_images(run: Path, tmp_path: Path) -> None:
    ways: list[list[object]] = [[], ["--weights", "raw"], ["--truncation", 0.5]]
    for index, way in enumerate(ways):
        assert gan("sample", run, "--count", 4, "--out", tmp_path / f"{index}.png", *way) == 0
    assert len({(tmp_path / f"{index}.png").read_bytes() for index in range(3)}) == 3
    assert (pixels(tmp_path / "1.png") == np.asarray(grid(drawn(run, 4, weights="raw")))).all()
    cut = draw_all(load(run), truncated(numbered(0, range(4), 8), 0.5))
    assert (pixels(tmp_path / "2.png") == np.asarray(grid(cut))).all()


def test_sums_stand_behind_their_parts(run: Path, tmp_path: Path) -> None:
    """A row for each: its parts, white, what they come to."""
    assert gan("sample", run, "--mix", "3-5+7", "0.5*3+0.5*7", "--out", tmp_path / "mix.png") == 0
    assert gan("sample", run, "--mix", "3-5+7", "0.5*3+0.5*7", "--each", tmp_path / "each") == 0
    G = load(run)
    three, five, seven = (drawn(run, 1, seed=seed)[0] for seed in (3, 5, 7))
    sums = [draw_all(G, parse_mix(text).latent(8)[None])[0] for text in ("3-5+7", "0.5*3+0.5*7")]
    rows = [[three, five, seven, sums[0]], [three, seven, np.full_like(three, 255), sums[1]]]
    assert (pixels(tmp_path / "mix.png") == np.vstack([np.hstack(row) for row in rows])).all()
    for index in range(2):
        assert (pixels(tmp_path / "each" / f"mix{index}.png") == sums[index]).all()
    assert gan("sample", run, "--mix", "3", "--truncation", 0.3, "--out", tmp_path / "cut.png") == 0
    part, total = np.hsplit(pixels(tmp_path / "cut.png"), 2)
    assert (part == total).all()
    assert (part != three).any()
    assert gan("sample", run, "--seeds", 3, "--truncation", 0.3, "--each", tmp_path / "cut") == 0
    assert (pixels(tmp_path / "cut" / "seed3-00000.png") == part).all()


def test_a_film_passes_the_chosen_images(run: Path, tmp_path: Path) -> None:
    """Three side by side, each through four of its own and back: 4 × 5 frames."""
    words = ("--interpolate", 4, "--steps", 5, "--count", 12)
    assert gan("sample", run, *words, "--out", tmp_path / "film.gif") == 0
    stills = [np.asarray(grid(part)) for part in drawn(run, 12).reshape(3, 4, 16, 16, 3).swapaxes(0, 1)]
    with Image.open(tmp_path / "film.gif") as film:
        assert (film.n_frames, film.info["loop"], film.info["duration"]) == (20, 0, 40)  # type: ignore[attr-defined]
        frames = []
        for index in range(20):
            film.seek(index)
            frames.append(np.asarray(film.convert("RGB")))
    assert passed(frames, stills) == [0, 1, 2, 3], "up to the 256 colours of a GIF"
    assert gan("sample", run, *words, "--out", tmp_path / "film.mp4") == 0
    with av.open(tmp_path / "film.mp4") as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        assert container.streams.video[0].average_rate == 25
    assert len(frames) == 20
    assert passed(frames, stills) == [0, 1, 2, 3], "up to compression"


def passed(frames: list[np.ndarray], stills: list[np.ndarray]) -> list[int]:
    """Which still each fifth frame is most like."""
    return [int(np.argmin([np.abs(frame.astype(int) - still).mean() for still in stills])) for frame in frames[::5]]


@pytest.mark.parametrize(
    ("mirrors", "axis"),
    [(AugmentConfig(flip=0.5), 1), (AugmentConfig(flip_vertical=0.5), 0)],
    ids=["left to right", "top to bottom"],
)
def test_training_images_stand_beside_what_is_like_them(
    mirrors: AugmentConfig, axis: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A generator's own images as training data, one of them mirrored: each is found, beside itself and on top."""
    run = untrained_run(tmp_path / "run", augment=mirrors)
    assert gan("sample", run, "--seeds", "0-119", "--each", tmp_path / "data") == 0
    turned = tmp_path / "data" / "seed9-00000.png"
    Image.fromarray(np.flip(pixels(turned), axis)).save(turned)
    assert gan("sample", run, "--seeds", "400,7,9", "--nearest", 2, "--data", tmp_path / "data",
               "--out", tmp_path / "near.png", "--data-options.cache", tmp_path / "cache") == 0  # fmt: skip
    assert (tmp_path / "cache").exists()
    rows = pixels(tmp_path / "near.png").reshape(3, 16, 4, 16, 3).swapaxes(1, 2)
    for row, seed, axes in zip(rows[:2], (7, 9), ((), (axis,)), strict=True):
        assert (row[0] == drawn(run, 1, seed=seed)[0]).all()
        assert (row[2] == np.flip(row[0], axes)).all(), "its copy among the training images"
        assert (row[3] != row[0]).any()
    assert (rows[2][0] == drawn(run, 1, seed=400)[0]).all()
    assert (rows[:, 1] == 255).all()
    assert "Nearer than 19 in 20 training images are to another: 2 of 3 images;" in capsys.readouterr().out


def test_how_alike_is_told_in_words() -> None:
    among, distances = torch.arange(1.0, 201), torch.tensor([5.0, 10.9, 12.0])
    assert "another: 2 of 3 images" in likeness(distances, among), "a twentieth of 200 is nearer than 10.95"
    assert "(median)" in likeness(distances, among[:99])
    assert "another" not in likeness(distances, among[:99]), "too few to say"


def test_alpha_is_compared_over_the_runs_background(tmp_path: Path) -> None:
    """An opaque image with the colours that the drawn one has over the run's red is the nearest, not its negative."""
    run = untrained_run(tmp_path / "run", channels=4, data_options=DataOptions(background="#ff0000"))
    seen = to_rgb(drawn(run, 1), (255, 0, 0))[0]
    white = to_rgb(drawn(run, 1), (255, 255, 255))[0]
    (tmp_path / "data").mkdir()
    opaque = np.dstack([seen, np.full((16, 16), 255, np.uint8)])
    for index, colours in enumerate([255 - seen, white, seen]):
        image = np.dstack([colours, np.full((16, 16), 255, np.uint8)])
        Image.fromarray(image).save(tmp_path / "data" / f"{index}.png")
    assert gan("sample", run, "--count", 1, "--nearest", 1, "--data", tmp_path / "data",
               "--out", tmp_path / "near.png") == 0  # fmt: skip
    assert (pixels(tmp_path / "near.png")[:, 32:] == opaque).all()


def test_an_export_is_sampled_as_its_run(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert gan("export", run, tmp_path / "out") == 0
    for place, name in ((run, "one"), (tmp_path / "out", "two")):
        assert gan("sample", place, "--count", 3, "--out", tmp_path / f"{name}.png") == 0
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()
    assert gan("sample", tmp_path / "out", "--nearest", 1) == 2
    assert "give --data SOURCE" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--count", 0], "--count 0 must be at least 1"),
        (["--seed", -1], "--seed -1 must be at least 0"),
        (["--seeds", "9-3"], "ends before it begins"),
        (["--seeds", "x"], "neither a seed nor a range"),
        (["--mix", "3+"], "no sum of seeds"),
        (["--seeds", "1", "--count", 3], "three ways to choose images"),
        (["--seeds", "1", "--mix", "1+2"], "three ways to choose images"),
        (["--each", "x", "--out", "y.png"], "give one of them"),
        (["--each", "x", "--nearest", 2], "--each and --nearest exclude each other"),
        (["--interpolate", 1], "--interpolate 1 must be at least 2"),
        (["--interpolate", 5], "needs a multiple of 5 images; 64 are chosen"),
        (["--interpolate", 4, "--steps", 0], "--steps 0 at least 1"),
        (["--interpolate", 4, "--out", "film.avi"], "must end in .gif or .mp4"),
        (["--out", "picture.jpg"], "must end in .png"),
        (["--nearest", 0], "--nearest 0 must be at least 1"),
        (["--truncation", 0], "--truncation 0.0 must be above 0"),
        (["--truncation", "nan"], "--truncation nan must be above 0"),
        (["--device", "abacus"], "--device abacus does not work here"),
        (["--device", "cuda:7"], "--device cuda:7 does not work here"),
        (["--device", "meta"], "--device meta does not work here"),
        (["--mix"], "no sum of seeds"),
        (["--data", "somewhere"], "--data names the training images for --nearest"),
    ],
)
def test_refusals(run: Path, words: list[object], sentence: str, tmp_path: Path,
                  monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert gan("sample", run, *words) == 2
    told = capsys.readouterr().err
    assert sentence in told
    assert told.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_too_few_training_images(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert gan("sample", run, "--seeds", "0-2", "--each", tmp_path / "data") == 0
    assert gan("sample", run, "--nearest", 3, "--data", tmp_path / "data") == 2
    assert "--nearest 3 must be below the number of training images, 3" in capsys.readouterr().err


def test_a_place_that_cannot_be_written(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    for words in (["--out", tmp_path / "file" / "x.png"], ["--each", tmp_path / "file"],
                  ["--interpolate", 2, "--steps", 1, "--out", tmp_path / "file" / "x.gif"]):  # fmt: skip
        assert gan("sample", run, "--count", 2, *words) == 2
        assert f"cannot write into {tmp_path / 'file'}" in capsys.readouterr().err


def test_a_film_that_fails_leaves_the_one_before(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("--interpolate", 2, "--count", 2, "--steps", 1, "--out", tmp_path / "film.gif")
    assert gan("sample", run, *words) == 0
    before = (tmp_path / "film.gif").read_bytes()

    def full(self: Path, content: bytes) -> int:
        with self.open("wb") as file:
            file.write(content[:9])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    assert gan("sample", run, *words) == 2
    assert (tmp_path / "film.gif").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["film.gif"]


def test_a_film_without_its_library(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                    capsys: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    monkeypatch.setitem(sys.modules, "av", None)
    assert gan("sample", run, "--interpolate", 2, "--count", 2, "--out", tmp_path / "film.mp4") == 2
    assert "pip install 'av" in capsys.readouterr().err
