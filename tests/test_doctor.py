"""`gan doctor` on the machine that is there, and on some that are not."""

import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from gan import doctor
from gan.config import Config
from gan.data.pack import open_pack
from gan.data.sources import Folder
from gan.doctor import ATTENTION, BAD, CHECKS, GOOD, Finding, findings, show
from gan.errors import UsageError
from gan.estimate import look_at
from tests.conftest import gan

SMALL = "resolution: 16\nbatch-size: 8\nepochs: 4\nmodel: {width: 4, z-dim: 8}\n"


@pytest.fixture(autouse=True)
def precision(monkeypatch: pytest.MonkeyPatch) -> None:
    """As it was after each test, whatever the doctor recommends."""
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")


def found(name: str, config: Config) -> list[Finding]:
    return [*findings(name, CHECKS[name], config)]


def test_everything(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole command, two real processes and real iterations among it; nothing is left behind."""
    (tmp_path / "small.yaml").write_text(SMALL)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))  # where others have not packed the images
    monkeypatch.setattr(doctor, "SPEED_S", 0.2)
    assert gan("doctor", "--data", images, "--recipe", "small.yaml") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [*dict.fromkeys(line[5:15].strip() for line in lines)] == [*CHECKS]
    said = {line[5:15].strip(): line for line in lines}
    assert said["processes"].startswith("[ok] processes  two met by ")
    assert said["W&B"] == "[ok] W&B        offline, by WANDB_MODE"
    assert "iterations with batches of 8), so all of it would take about " in said["speed"]
    assert f"20 images in {images}, not packed yet: " in said["data"]
    assert f"torch {torch.__version__} " in said["versions"]
    assert os.listdir(tmp_path) == ["small.yaml"]


def test_what_would_keep_a_run_from_working_is_the_exit_status(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(config: Config) -> Iterator[Finding]:
        yield Finding("so far")
        raise ZeroDivisionError("two\nlines")

    def refused(config: Config) -> Iterator[Finding]:
        raise UsageError("Say it plainly.")
        yield

    monkeypatch.setattr(doctor, "CHECKS", {"one": broken, "two": refused})
    assert gan("doctor") == 1
    printed = capsys.readouterr()
    assert printed.out.splitlines() == [
        "[ok] one        so far",
        "[x ] one        could not be checked (ZeroDivisionError: two lines). Mend that; a run may meet it too.",
        "[x ] two        Say it plainly.",
    ]
    assert printed.err == "error: 2 things marked [x ] would keep a run from working.\n"
    assert gan("doctor", "--recipe", "quikstart") == 2
    assert "did you mean quickstart?" in capsys.readouterr().err
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert gan("doctor") == 2
    assert "run it without accelerate launch" in capsys.readouterr().err


def test_colour_and_width_are_for_terminals(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    finding = Finding("word " * 20, "Do this.", BAD)
    show("disk", finding)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "80")
    show("disk", finding)
    plain, first, second = capsys.readouterr().out.splitlines()
    assert plain == f"[x ] disk       {'word ' * 20}Do this."
    assert first.startswith("\x1b[31m[x ]\x1b[0m disk       word")
    assert second.startswith(" " * 16 + "word")
    assert max(len(first) - 9, len(second)) <= 80


A100, RTX, T4, GTX16, GTX10 = (
    *(("NVIDIA A100", (8, 0)), ("NVIDIA GeForce RTX 4090", (8, 9)), ("Tesla T4", (7, 5))),
    *(("NVIDIA GeForce GTX 1650", (7, 5)), ("NVIDIA GeForce GTX 1080", (6, 1))),
)


def test_cards_that_this_torch_has_no_code_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two cards as torch would describe them, and a third that CUDA_VISIBLE_DEVICES hides."""
    cards = [SimpleNamespace(name=name, major=major, minor=minor, total_memory=8 * 2**30)
             for name, (major, minor) in (GTX10, A100)]  # fmt: skip
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(cards))
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: cards[index])
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda index: ((index + 1) * 3 * 2**30, 8 * 2**30))
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_75", "sm_80"])
    monkeypatch.setattr(torch.version, "hip", None)
    old, new = found("gpu", Config(iterations=1))[-2:]
    assert (old.mark, new.mark) == (BAD, GOOD)
    assert "has no code for NVIDIA GeForce GTX 1080 (capability 6.1)" in old.text
    assert new.text == "1: NVIDIA A100, capability 8.0, 6.0 GiB of 8.0 GiB free, supported by this torch."
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_61", "sm_80"])
    assert [finding.mark for finding in found("gpu", Config(iterations=1))[-2:]] == [ATTENTION, GOOD]


def test_a_driver_whose_gpus_torch_cannot_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (smi := tmp_path / "nvidia-smi").write_text("#!/bin/sh\necho 555.42.02\necho 555.42.02\n")
    smi.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "nonsense")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    driver, none = found("gpu", Config(iterations=1))
    assert driver.mark == ATTENTION
    assert driver.text == "the driver, 555.42.02, has 2; torch can use 0; CUDA_VISIBLE_DEVICES is 'nonsense'."
    assert none == Finding("none that torch can use: runs are on the CPU")


def test_a_driver_that_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (smi := tmp_path / "nvidia-smi").write_text("#!/bin/sh\nexec sleep 30\n")
    smi.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(doctor, "DRIVER_S", 0.1)
    (finding,) = found("gpu", Config(iterations=1))
    assert finding == Finding("nvidia-smi has not answered for 0.1 s.", "The driver hangs: restart the machine.", BAD)


def test_processes_that_do_not_meet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "MEETING_S", 0.01)
    (finding,) = found("processes", Config(iterations=1))
    assert finding.mark == BAD


def test_disks(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    assert [finding.mark for finding in found("disk", config)] == [GOOD, GOOD]
    nowhere = dataclasses.replace(config, out=Path("/dev/null/run"))
    assert "the run folder /dev/null/run cannot be written (Not a directory)" in found("disk", nowhere)[0].text
    monkeypatch.setattr(doctor, "probe", lambda folder: 1 << 20)
    assert [finding.mark for finding in found("disk", config)] == [BAD, ATTENTION]
    assert not Path(str(config.out)).exists()


@pytest.mark.parametrize(("variable", "value"), [("MODE", "nonsense"), ("API_KEY", "sesame")])
def test_broken_settings_of_wandb_are_no_fault_and_are_not_printed(
    variable: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv(f"WANDB_{variable}", value)
    auto = Config(iterations=1)
    (finding,) = found("W&B", auto)
    assert finding.mark == ATTENTION
    assert value not in finding.text


def test_a_job_of_slurm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    (finding,) = found("SLURM", Config(iterations=1))
    assert finding.text.startswith("job_id 17")


def test_the_smallest_card_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "own_cards", lambda: [A100, GTX16])
    for sizes, mark in (((80, 80), GOOD), ((80, 0.1), BAD), ((0.1, 80), BAD)):
        monkeypatch.setattr(doctor, "memory_of", lambda device, sizes=sizes: sizes[device.index] * 2**30)
        assert found("memory", Config(iterations=1))[0].mark == mark


def test_double_precision_is_not_mixed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Though the card would suit bf16: a run would be refused, not be slow."""
    monkeypatch.setattr(doctor, "own_cards", lambda: [A100])
    assert [doctor.suitable(Config(dtype=dtype)) for dtype in ("float32", "float64")] == ["bf16", "no"]


def test_memory_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    config = Config(iterations=1)
    monkeypatch.setattr(doctor, "memory_of", lambda device: 1 << 20)
    assert found("memory", config)[0].mark == BAD


def test_how_long_it_would_take(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """Six batches, one a minute."""
    monkeypatch.setattr(doctor, "images_per_second", lambda config, seconds, cards: (8 / 60, 8, 3))
    (finding,) = found("speed", config)
    assert "all of it would take about 6.0 min." in finding.text


def test_images_that_are_not_packed_yet(config: Config, images: Path, tmp_path: Path) -> None:
    for path in images.rglob("*.png"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    config = dataclasses.replace(config, data=str(tmp_path))
    assert [finding.mark for finding in found("data", config)] == [GOOD]
    (tmp_path / "image 3.png").write_text("no image")
    listed, unreadable = found("data", config)
    assert listed.text.startswith(f"20 images in {tmp_path}, not packed yet: ")
    assert unreadable.mark == BAD
    assert "1 of 20 that were looked at cannot be read, e.g. " in unreadable.text
    assert "image 3.png: is not an image" in unreadable.text
    some = dataclasses.replace(config, data_options=dataclasses.replace(config.data_options, max_rejected=0.1))
    assert found("data", some)[1].mark == ATTENTION
    large = dataclasses.replace(config, batch_size=64)
    assert "fewer than one batch of 64" in found("data", large)[-1].text
    assert len(look_at(Folder(tmp_path), config, 7).decoded) in (6, 7)
    open_pack(some)
    packed, _ = found("data", some)
    assert packed.text.startswith(f"19 images in {tmp_path}, packed: ")


def test_data_that_is_not_there(config: Config) -> None:
    gone = dataclasses.replace(config, data="nowhere")
    (finding,) = found("data", gone)
    assert (finding.mark, "there is no 'nowhere'" in finding.text) == (BAD, True)
    later = dataclasses.replace(config, data="torchvision:CIFAR10")
    assert found("data", later) == [Finding("torchvision:CIFAR10 is downloaded when a run begins")]
