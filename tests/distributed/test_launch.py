"""The shipped configurations through the real launcher, and what is refused before anything is trained."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch

from gan.cli import PATIENCE
from tests.conftest import (
    ROOT,
    TINY,
    assert_same_weights,
    checkpoint_of,
    largest_difference,
    log_of,
    run_script,
    train,
    with_processes,
)

CONFIGS = ROOT / "accelerate_configs"
SHORT = ("--iterations", 2)


@pytest.fixture(scope="module")
def plain(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run every configuration is held against: python train.py."""
    run = tmp_path_factory.mktemp("plain")
    train("--data", images, "--out", run, *SHORT)
    return run


def facts(run: Path) -> tuple[int, str]:
    environment = json.loads((run / "environment.json").read_text())
    return environment["processes"], environment["precision"]


@pytest.mark.parametrize("name", ["single_gpu", pytest.param("gtx", marks=pytest.mark.slow)])
def test_their_number_of_processes_can_be_changed(name: str, images: Path, tmp_path: Path) -> None:
    if torch.cuda.device_count() == 1:
        pytest.skip("two processes need two GPUs, or none")
    train("--data", images, "--out", tmp_path, *SHORT, launcher=with_processes(2, name))
    assert facts(tmp_path) == (2, "no")


@pytest.mark.parametrize("name", ["cpu", "single_gpu", "gtx"])
def test_one_process(name: str, images: Path, tmp_path: Path, plain: Path) -> None:
    train("--data", images, "--out", tmp_path, *SHORT, launcher=("--config_file", str(CONFIGS / f"{name}.yaml")))
    assert facts(tmp_path) == (1, "no")
    if not torch.accelerator.is_available():
        assert_same_weights(checkpoint_of(plain, 2), checkpoint_of(tmp_path, 2))


@pytest.mark.parametrize(
    ("name", "precision"),
    [("cpu_2", "no"), ("multi_gpu", "no"), ("multi_gpu_bf16", "bf16"), ("multi_gpu_fp16", "fp16")],
)
def test_several_processes(name: str, precision: str, images: Path, tmp_path: Path) -> None:
    if torch.cuda.device_count() == 1:
        pytest.skip("two processes need two GPUs, or none")
    words = ("--data", images, *SHORT)
    printed = train(*words, "--out", tmp_path / "2", launcher=("--config_file", str(CONFIGS / f"{name}.yaml")))
    if precision == "fp16" and not torch.accelerator.is_available():
        precision = "no"
        assert printed.count("fp16 needs a GPU; on this cpu the run is in float32.") == 1
    assert facts(tmp_path / "2") == (2, precision)
    if precision == "bf16":  # one for all
        train(*words, "--out", tmp_path / "1", launcher=with_processes(1, name))
        assert facts(tmp_path / "1") == (1, precision)


def test_every_configuration_is_tested() -> None:
    assert sorted(path.stem for path in CONFIGS.glob("*.yaml")) == sorted(
        ["cpu", "single_gpu", "gtx", "cpu_2", "multi_gpu", "multi_gpu_bf16", "multi_gpu_fp16", "multi_node"]
    )


def on_two_machines(
    *words: object, second: tuple[object, ...] = (), second_code: Path = ROOT, second_launcher: tuple[str, ...] = ()
) -> list[subprocess.CompletedProcess[str]]:
    """Two launchers with a process each that meet on loopback; `second` and `second_launcher` are further words for
    the second machine, and `second_code` is where its copy of the project lies."""
    started = start_on_two_machines(*words, second=second, second_code=second_code, second_launcher=second_launcher)
    ended = []
    for process in started:
        out, err = process.communicate(timeout=120)
        ended.append(subprocess.CompletedProcess(process.args, process.returncode, out, err))
    return ended


def start_on_two_machines(
    *words: object, second: tuple[object, ...] = (), second_code: Path = ROOT, second_launcher: tuple[str, ...] = ()
) -> list[subprocess.Popen[str]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    commands = []
    for rank in range(2):
        launcher = ["--config_file", CONFIGS / "multi_node.yaml", "--machine_rank", rank, "--main_process_port", port]
        launcher += second_launcher if rank else ()
        script = [(second_code if rank else ROOT) / "train.py", *TINY, *words, *(second if rank else ())]
        commands.append(
            [str(word) for word in (sys.executable, "-m", "accelerate.commands.launch", *launcher, *script)]
        )
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return [subprocess.Popen(command, **pipes) for command in commands]  # type: ignore[call-overload]


def test_two_machines_are_two_processes(images: Path, tmp_path: Path) -> None:
    words = ("--data", images, "--dtype", "float64", *SHORT, "--out")
    for result in on_two_machines(*words, tmp_path / "machines"):
        assert result.returncode == 0, result.stderr
    assert facts(tmp_path / "machines") == (2, "no")
    train(*words, tmp_path / "process")
    machines, process = checkpoint_of(tmp_path / "machines", 2), checkpoint_of(tmp_path / "process", 2)
    assert largest_difference(machines, process) < 1e-13
    two, one = (log_of(tmp_path / run)[-1] for run in ("machines", "process"))
    means = [name for name in one if name.startswith(("loss/", "score/", "grad_norm/"))]
    for name in (*means, "health/accuracy", "health/margin"):
        assert two[name] == pytest.approx(one[name], abs=1e-12), name


def test_machines_that_share_no_disk_go_on_from_the_first_ones_checkpoint(images: Path, tmp_path: Path) -> None:
    """The second machine's run folder is another place, and stays unused."""
    words, elsewhere = (
        ("--data", images, "--dtype", "float64", "--out", tmp_path / "here"),
        ("--out", tmp_path / "there"),
    )
    train(*words, "--iterations", 4, "--checkpoint.every", 2, launcher=with_processes(2))
    straight = checkpoint_of(tmp_path / "here", 4)
    (tmp_path / "here" / "checkpoints" / "iteration-00000004" / "state.json").unlink()
    one, two = on_two_machines(*words, "--iterations", 4, second=elsewhere)
    assert (one.returncode, two.returncode) == (0, 0), one.stderr + two.stderr
    assert "Going on from" in one.stdout
    assert largest_difference(straight, checkpoint_of(tmp_path / "here", 4)) < 1e-13
    assert not (tmp_path / "there").exists()


@pytest.mark.parametrize(
    ("second", "sentence"),
    [
        (
            ("--seed", 1, "--log-every", 7, "--model.width", 8),
            "process 1 differs from process 0 in its --seed, --log-every, --model.width",
        ),
        (("--data", "sprites"), "process 1 differs from process 0 in its images"),
        (("--data", "nowhere"), "there is no 'nowhere'"),
    ],
)
def test_machines_that_disagree_are_refused(
    second: tuple[object, ...], sentence: str, images: Path, tmp_path: Path
) -> None:
    results = on_two_machines("--data", images, "--out", tmp_path / "run", *SHORT, second=second)
    assert [result.returncode for result in results] == [1, 1]
    (line,) = [line for line in results[0].stderr.splitlines() if line.startswith("error: ")]
    assert sentence in line
    assert not (tmp_path / "run").exists()


def test_machines_with_different_precision_are_refused(images: Path, tmp_path: Path) -> None:
    words = ("--data", images, "--out", tmp_path / "run", *SHORT)
    results = on_two_machines(*words, second_launcher=("--mixed_precision", "bf16"))
    assert [result.returncode for result in results] == [1, 1]
    assert "process 1 differs from process 0 in its --mixed_precision." in results[0].stderr


def test_a_machine_that_refuses_before_they_meet_says_so_itself(images: Path, tmp_path: Path) -> None:
    """The first one waits for it, ten minutes at most; here no longer than needed."""
    words = ("--data", images, "--out", tmp_path / "run", *SHORT)
    first, second = start_on_two_machines(*words, second=("--recipe", "nowhere.yaml"))
    _, err = second.communicate(timeout=120)
    first.terminate()
    first.communicate(timeout=120)
    assert second.returncode == 1
    assert "error: cannot read the recipe nowhere.yaml" in err


@pytest.mark.parametrize("rank", [0, 1])
def test_a_machine_that_dies_is_named_by_the_other(rank: int, images: Path, tmp_path: Path) -> None:
    """Its launcher and its process at once, so that nobody is left to report it."""
    words = ("--data", images, "--out", tmp_path, "--iterations", 10**6, "--checkpoint.every", 5)
    machines = start_on_two_machines(*words, "--log-every", 5, "--distributed.timeout", 5)
    while not list((tmp_path / "checkpoints").glob("iteration-*")):
        assert machines[0].poll() is None
        time.sleep(0.05)
    launcher = psutil.Process(machines[rank].pid)
    for process in [*launcher.children(), launcher]:
        process.suspend()  # so that neither can report the other
    for process in [*launcher.children(), launcher]:
        process.kill()
    machines[rank].communicate()
    _, err = machines[1 - rank].communicate(timeout=60)
    assert machines[1 - rank].returncode == 1
    lost = "process 1 on " if rank else "process 0, which all others report to, cannot be reached"
    assert lost in err
    assert "the same command goes on from its newest checkpoint" in err


def test_machines_with_different_code_are_refused(images: Path, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "gan", tmp_path / "code" / "gan")
    shutil.copy(ROOT / "train.py", tmp_path / "code")
    with open(tmp_path / "code" / "gan" / "ema.py", "a") as file:
        file.write("# another version\n")
    words = ("--data", images, "--out", tmp_path / "run", *SHORT)
    results = on_two_machines(*words, second_code=tmp_path / "code")
    assert [result.returncode for result in results] == [1, 1]
    assert "process 1 differs from process 0 in its code of gan." in results[0].stderr


@pytest.mark.parametrize(
    ("launcher", "sentence"),
    [
        (("--cpu", "--num_processes", "2"), "was asked for several processes but has started one"),
        (("--use_fsdp", "--num_processes", "2", "--fsdp_version", "2"), "FSDP shards one model per run"),
        (
            with_processes(3),
            "--batch-size 8 cannot be shared by 3 processes × 1 accumulation steps; the nearest that can",
        ),
    ],
)
def test_wrong_launches_are_refused(launcher: tuple[str, ...], sentence: str, images: Path, tmp_path: Path) -> None:
    result = run_script(*TINY, "--data", images, "--out", tmp_path / "run", *SHORT, launcher=launcher)
    assert result.returncode == 1
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert sentence in line


@pytest.mark.parametrize(
    ("differently", "seconds"),
    [
        # The launcher ends the slow one as soon as it sees that the other has failed
        pytest.param("if os.environ.get('LOCAL_RANK') == '0': time.sleep(2)", 0, id="process 0 is slower"),
        pytest.param(
            "if os.environ.get('LOCAL_RANK') == '1': os.environ['ACCELERATE_USE_FSDP'] = 'true'",
            PATIENCE,
            id="process 1 alone meets it",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_fault_is_told_whoever_is_first_to_meet_it(
    differently: str, seconds: float, images: Path, tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text(f"import os, time\n{differently}\n")
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    if not seconds:
        environment["ACCELERATE_USE_FSDP"] = "true"
    words = (*TINY, "--data", images, "--out", tmp_path / "run", *SHORT)
    began = time.monotonic()
    result = run_script(*words, launcher=with_processes(2), env=environment)
    assert result.returncode == 1
    assert result.stderr.count("error: FSDP shards one model per run") == 1
    assert time.monotonic() - began > seconds


def test_a_name_that_is_no_text_is_refused_by_all(tmp_path: Path) -> None:
    """The processes tell each other what is wrong; file names may hold any bytes."""
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / os.fsdecode(b"caf\xe9.png")).write_bytes(b"no image")
    words = ("--data", tmp_path / "images", "--out", tmp_path / "run", *SHORT)
    result = run_script(*TINY, *words, launcher=with_processes(2))
    assert result.returncode == 1
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert "1 of 1 images cannot be read" in line
    assert "caf\\udce9.png" in line
    assert "UnicodeEncodeError" not in result.stderr
