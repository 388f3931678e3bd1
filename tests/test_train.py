"""The real script, as users start it; W&B that dies or does not answer is in tests/faults/test_trackers.py."""

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import filelock
import pytest
import torch
from PIL import Image

from tests.conftest import ROOT, TINY, assert_same_weights, checkpoint_of, log_of, run_script, train

LAUNCH = ("--num_processes", "1")  # any words make the helper go through accelerate launch


def test_a_folder_of_20_images_from_end_to_end(images: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    words = ("--data", images, "--out", run, "--iterations", 7, "--log-every", 2, "--sample-every", 3)
    printed = train(*words, "--checkpoint.every", 4, launcher=LAUNCH)
    log = log_of(run)
    assert [entry["iteration"] for entry in log] == [2, 4, 6, 7]
    assert [entry["images"] for entry in log] == [16, 32, 48, 56]
    assert log[1]["epoch"] == 32 / 20
    for entry in log:
        assert {"loss/d", "loss/g", "score/real", "score/fake", "perf/images_per_second"} <= entry.keys()
        assert 0 < entry["score/fake"] < 1
        assert entry["perf/images_per_second"] > 0
    assert json.loads((run / "status.json").read_text()) == {"state": "finished", "iteration": 7, "total": 7}
    assert sorted(os.listdir(run / "checkpoints")) == ["iteration-00000004", "iteration-00000007"]
    pictures = [f"iteration-0000000{number}{which}.png" for number in (3, 6, 7) for which in ("-raw", "")]
    assert sorted(os.listdir(run / "samples")) == [*pictures, "reals.png"]
    with Image.open(run / "samples" / "iteration-00000007.png") as grid:
        assert (grid.size, grid.mode) == ((8 * 16, 8 * 16), "RGB")
    assert json.loads((run / "environment.json").read_text())["torch"] == torch.__version__
    assert str(run) in printed
    assert "iteration-00000007.png" in printed
    assert "gan sample" in printed
    repeated = train(*words)
    assert "already finished" in repeated
    assert len(log_of(run)) == 4


def test_a_zip_with_other_channels(images: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        for path in images.rglob("*.png"):
            archive.write(path, path.relative_to(images))
    for channels, mode in ((1, "L"), (4, "RGBA")):
        run = tmp_path / f"run {channels}"
        train("--data", tmp_path / "set.zip", "--out", run, "--iterations", 2, "--channels", channels)
        for name in ("reals", "iteration-00000002"):
            with Image.open(run / "samples" / f"{name}.png") as grid:
                assert grid.mode == mode


def test_the_same_command_gives_the_same_weights_bit_for_bit(images: Path, tmp_path: Path) -> None:
    for name, seed in (("one", 5), ("two", 5), ("other", 6)):
        train("--data", images, "--out", tmp_path / name, "--iterations", 4, "--seed", seed)
    one = checkpoint_of(tmp_path / "one", 4)
    assert_same_weights(one, checkpoint_of(tmp_path / "two", 4))
    other = checkpoint_of(tmp_path / "other", 4)
    assert not one.tensors["generator"]["to_image.weight"].equal(other.tensors["generator"]["to_image.weight"])


def test_a_run_folder_in_use_is_refused(images: Path, tmp_path: Path) -> None:
    with filelock.FileLock(tmp_path / ".lock"):
        result = run_script(*TINY, "--data", images, "--out", tmp_path, "--iterations", 1)
    assert result.returncode == 2
    assert "another process is training in" in result.stderr


def test_bf16_comes_from_the_launcher(images: Path, tmp_path: Path) -> None:
    """Autocast reaches both updates: the weights stay float32 and come out otherwise than in float32."""
    words = ("--data", images, "--iterations", 2, "--out")
    train(*words, tmp_path / "bf16", launcher=("--mixed_precision", "bf16"))
    train(*words, tmp_path / "fp32")
    one, two = checkpoint_of(tmp_path / "bf16", 2), checkpoint_of(tmp_path / "fp32", 2)
    assert json.loads((tmp_path / "bf16" / "environment.json").read_text())["precision"] == "bf16"
    reach = 2 * (1 + 10**0.5 / 3) * 5e-4  # on each side, Adam's first step is at most lr, its second at most √10/3 lr
    for group in ("generator", "discriminator"):
        for name, tensor in one.tensors[group].items():
            if name.endswith("conv.weight"):
                assert tensor.dtype == torch.float32
                assert not tensor.equal(two.tensors[group][name])
                torch.testing.assert_close(tensor, two.tensors[group][name], rtol=0, atol=reach)
    launched = {**os.environ, "ACCELERATE_MIXED_PRECISION": "bf16"}
    refused = run_script(*TINY, *words, tmp_path / "both", "--dtype", "float64", env=launched)
    assert "float64 and mixed precision bf16 exclude each other" in refused.stderr


def test_wandb_goes_offline_without_a_login_and_keeps_everything(images: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    words = [*TINY, "--data", images, "--out", run, "--track.wandb", "auto", "--log-every", 2]
    home = {key: value for key, value in os.environ.items() if not key.startswith("WANDB")} | {"HOME": str(tmp_path)}
    result = run_script(*words, "--iterations", 4, env=home)
    assert result.returncode == 0, result.stderr
    assert f"wandb sync {run}/wandb/offline-run-*" in result.stdout
    (folder,) = (run / "wandb").glob("offline-run-*")
    assert folder.name.endswith((run / "wandb" / "id.txt").read_text())
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(folder)]
    read = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert read.returncode == 0, read.stderr
    for name in ("loss/d", "loss/g", "score/real", "score/fake", "perf/images_per_second", "iteration", "epoch"):
        assert name in read.stdout, read.stdout
    again = run_script(*words, "--iterations", 6, env=home)
    assert again.returncode == 0, again.stderr
    assert len({folder.name.split("-")[-1] for folder in (run / "wandb").glob("offline-run-*")}) == 1


def test_wandb_online_without_a_login_never_asks(images: Path, tmp_path: Path) -> None:
    """On a terminal, where wandb would open a prompt."""
    if shutil.which("script") is None:
        pytest.skip("needs util-linux's script to make a terminal")
    command = [sys.executable, str(ROOT / "train.py"), *TINY, "--data", images, "--out", tmp_path / "run"]
    words = " ".join(map(str, [*command, "--iterations", 1, "--track.wandb", "online"]))
    home = {key: value for key, value in os.environ.items() if not key.startswith("WANDB")} | {"HOME": str(tmp_path)}
    result = subprocess.run(
        ["script", "-qec", words, "/dev/null"], env=home, capture_output=True, text=True, timeout=90
    )
    assert result.returncode == 0, result.stdout
    assert "not logged in" in result.stdout
    assert list((tmp_path / "run" / "wandb").glob("offline-run-*"))


def test_secrets_stay_out_of_the_run_folder(images: Path, tmp_path: Path) -> None:
    secret = "s3cr3t" * 7
    words = (*TINY, "--data", images, "--out", tmp_path, "--iterations", 1, "--track.wandb", "offline")
    result = run_script(*words, env={**os.environ, "WANDB_API_KEY": secret, "MY_TOKEN": secret})
    assert result.returncode == 0, result.stderr
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) > 10
    assert not [path for path in files if secret.encode() in path.read_bytes()]


def test_samples_from_a_finished_run(images: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train("--data", images, "--out", run, "--iterations", 2)
    gan = [str(Path(sys.executable).with_name("gan")), "sample"]
    for count in (3, 70):
        made = subprocess.run([*gan, run, "--count", str(count), "--out", tmp_path / f"{count}.png"], timeout=60)
        assert made.returncode == 0
    with Image.open(tmp_path / "3.png") as few, Image.open(tmp_path / "70.png") as many:
        assert few.size == (32, 32)
        assert many.size == (10 * 16, 7 * 16)
        assert few.crop((0, 0, 32, 16)).tobytes() == many.crop((0, 0, 32, 16)).tobytes()
    refused = subprocess.run([*gan, tmp_path / "nothing"], capture_output=True, text=True, timeout=60)
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
    assert "is neither a run folder nor a checkpoint in one" in refused.stderr


@pytest.mark.parametrize("name", ["noto_emoji_core_64.zip", "mnist_png_sample.zip"])
def test_real_images(name: str, tmp_path: Path) -> None:
    folder = os.environ.get("GAN_TEST_IMAGES")
    if not folder:
        pytest.skip("set GAN_TEST_IMAGES to a folder of image sets to run on them")
    words = (
        "--data",
        Path(folder) / name,
        "--out",
        tmp_path,
        "--resolution",
        32,
        "--batch-size",
        32,
        "--iterations",
        30,
    )
    train(*words, "--channels", 1 if "mnist" in name else 3, "--log-every", 10)
    log = log_of(tmp_path)
    assert log[-1]["score/real"] > log[-1]["score/fake"]  # D has learnt to tell them apart


def test_the_readme_begins_with_the_two_commands_that_are_all_the_setup() -> None:
    commands = re.findall(r"^(?:pip|accelerate|gan) .*", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert commands[0] == "pip install -e . && accelerate launch train.py"
    assert commands[1] == "pip install -e '.[test]' && pytest"
