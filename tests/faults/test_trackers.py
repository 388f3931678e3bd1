"""W&B that dies or hangs: training goes on, its log is whole, and its end does not wait for long."""

import json
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.conftest import ROOT
from tests.faults.jobs import Job, gone, status_of


def service_of(job: Job) -> psutil.Process:
    """W&B's own process."""
    found = [child for child in job.workers()[0].children(recursive=True) if "wandb" in " ".join(child.cmdline())]
    assert found
    return found[0]


def assert_it_ends_well(job: Job, lost_at: int) -> str:
    """After 400 iterations, soon, and with every line of the log; what was said."""
    job.wait_for_iteration(400)
    began = time.monotonic()
    code, said = job.end(60)
    took = time.monotonic() - began
    print(f"\nlost at iteration {lost_at}, {took:.1f} s from the last iteration to the end")
    assert code == 0, said
    assert lost_at < 400
    assert took < 25
    lines = [json.loads(line)["iteration"] for line in (job.run / "log.jsonl").read_text().splitlines()]
    assert lines == list(range(1, 401))
    assert status_of(job.run)["state"] == "finished"
    return said


@pytest.mark.parametrize("name", ["SIGKILL", "SIGSTOP"])
def test_its_process_is_lost(name: str, images: Path, tmp_path: Path) -> None:
    words = ("--track.wandb", "offline", "--iterations", 400, "--log-every", 1, "--sample-every", 20)
    job = Job("python", tmp_path / "run", "--data", images, *words).wait_for_iteration(3)
    service = service_of(job)
    service.send_signal(getattr(signal, name))
    said = assert_it_ends_well(job, status_of(job.run)["iteration"])
    assert gone([service]), "nothing is left behind"
    assert "log.jsonl has it all" in said


def test_a_second_signal_while_the_tracker_is_waited_for(images: Path, tmp_path: Path) -> None:
    words = ("--track.wandb", "offline", "--iterations", 1_000_000, "--log-every", 1)
    job = Job("python", tmp_path / "run", "--data", images, *words).wait_for_iteration(3)
    service_of(job).send_signal(signal.SIGSTOP)
    job.process.send_signal(signal.SIGTERM)
    job.until(lambda: status_of(job.run)["state"] == "preempted")
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT):
        time.sleep(0.5)
        job.process.send_signal(number)
    code, said = job.end(60)
    assert code == 75
    assert "Stopped by SIGTERM" in said
    assert status_of(job.run)["state"] == "preempted"


@pytest.mark.parametrize("amiss", [{"WANDB_API_KEY": "short"}, {"WANDB_MODE": "rubbish"}, {"WANDB_BASE_URL": "none"}])
def test_its_settings_are_amiss(amiss: dict[str, str], images: Path, tmp_path: Path) -> None:
    job = Job("python", tmp_path / "run", "--data", images, "--track.wandb", "auto", "--iterations", 2, **amiss)
    code, said = job.end(90)
    assert code == 0, said
    assert status_of(job.run)["state"] == "finished"
    assert "W&B" in said


def test_its_server_is_lost(images: Path, tmp_path: Path) -> None:
    """A run that is online, of 400 iterations, whose server dies on the way."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    command = [sys.executable, "-m", "tests.faults.wandb_server", port]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        environment = {"WANDB_BASE_URL": f"http://127.0.0.1:{port}", "WANDB_API_KEY": 40 * "a"}
        words = ("--track.wandb", "online", "--iterations", 400, "--log-every", 1, "--sample-every", 20)
        job = Job("python", tmp_path / "run", "--data", images, *words, **environment).wait_for_iteration(3)
        while "file_stream" not in server.stdout.readline():
            pass  # until the first values have arrived
        server.kill()
    said = assert_it_ends_well(job, status_of(job.run)["iteration"])
    assert f"W&B: http://127.0.0.1:{port}/me/gan/runs/" in said
