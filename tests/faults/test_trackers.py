"""W&B that dies, hangs or cannot be reached: training goes on, its log is whole, and its end does not wait for long."""

import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from tests.conftest import ROOT, log_of
from tests.faults.jobs import Job, gone, status_of

ITERATIONS = 200
SHORT = ("--iterations", ITERATIONS, "--log-every", 1, "--sample-every", 20)
AMISS = ({"WANDB_API_KEY": "short"}, {"WANDB_MODE": "rubbish"}, {"WANDB_BASE_URL": "none"})


@dataclass(frozen=True)
class Ended:
    """A run that has ended: what it said, the iteration at which W&B was lost, and the seconds from the last iteration
    to the end."""

    run: Path
    code: int
    said: str
    lost_at: int
    seconds: float

    @property
    def state(self) -> str:
        return str(status_of(self.run)["state"])


def end(job: Job, lost_at: int = 0, iterations: int = ITERATIONS, patience: float = 60) -> Ended:
    job.wait_for_iteration(iterations)
    began = time.monotonic()
    code, said = job.end(patience)
    return Ended(job.run, code, said, lost_at, time.monotonic() - began)


def service_of(job: Job) -> psutil.Process:
    """W&B's own process."""
    found = [child for child in job.workers()[0].children(recursive=True) if "wandb" in " ".join(child.cmdline())]
    assert found
    return found[0]


def process_lost(number: int, run: Path, images: Path) -> Ended:
    job = Job("python", run, "--data", images, "--track.wandb", "offline", *SHORT).wait_for_iteration(3)
    service = service_of(job)
    service.send_signal(number)
    ended = end(job, status_of(run)["iteration"])
    assert gone([service]), "nothing is left behind"
    return ended


def signalled_while_waiting(run: Path, images: Path) -> Ended:
    words = ("--track.wandb", "offline", "--iterations", 1_000_000, "--log-every", 1)
    job = Job("python", run, "--data", images, *words).wait_for_iteration(3)
    service_of(job).send_signal(signal.SIGSTOP)
    job.process.send_signal(signal.SIGTERM)
    job.until(lambda: status_of(run)["state"] == "preempted")
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT):
        time.sleep(0.5)
        job.process.send_signal(number)
    return end(job, iterations=0)


def set_amiss(amiss: dict[str, str], run: Path, images: Path) -> Ended:
    job = Job("python", run, "--data", images, "--track.wandb", "auto", "--iterations", 2, **amiss)
    return end(job, iterations=0, patience=90)


def server_lost(run: Path, images: Path) -> Ended:
    """A run that is online, whose server dies on the way."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    command = [sys.executable, "-m", "tests.faults.wandb_server", port]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        environment = {"WANDB_BASE_URL": f"http://127.0.0.1:{port}", "WANDB_API_KEY": 40 * "a"}
        words = ("--data", images, "--track.wandb", "online", *SHORT)
        job = Job("python", run, *words, **environment).wait_for_iteration(3)
        assert any("file_stream" in line for line in server.stdout), "no values have arrived"
        server.kill()
    return end(job, status_of(run)["iteration"])


def server_silent(run: Path, images: Path) -> Ended:
    """Logged in, but nobody listens; W&B is given 30 seconds to find out."""
    server = {"WANDB_BASE_URL": "http://127.0.0.1:9", "WANDB_API_KEY": "1" * 40, "HOME": str(run.parent)}
    return end(Job("python", run, "--data", images, "--track.wandb", "auto", "--iterations", 1, **server),
               iterations=0, patience=280)  # fmt: skip


SCENARIOS: dict[str, Callable[[Path, Path], Ended]] = {
    "silent": server_silent,
    "SIGSTOP": lambda run, images: process_lost(signal.SIGSTOP, run, images),
    "server": server_lost,
    "second signal": signalled_while_waiting,
    "SIGKILL": lambda run, images: process_lost(signal.SIGKILL, run, images),
    **{str(amiss): lambda run, images, amiss=amiss: set_amiss(amiss, run, images) for amiss in AMISS},  # type: ignore[misc]
}


@pytest.fixture(scope="module")
def ended(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Future[Ended]]]:
    """Four scenarios at a time, as they wait more than they work."""
    folder = tmp_path_factory.mktemp("trackers")
    with ThreadPoolExecutor(4) as pool:
        yield {name: pool.submit(act, folder / str(number) / "run", images)
               for number, (name, act) in enumerate(SCENARIOS.items())}  # fmt: skip


def assert_it_ended_well(ended: Ended) -> None:
    """After all its iterations, soon, and with every line of the log."""
    print(f"\nlost at iteration {ended.lost_at}, {ended.seconds:.1f} s from the last iteration to the end")
    assert ended.code == 0, ended.said
    assert ended.lost_at < ITERATIONS
    assert ended.seconds < 25
    assert [entry["iteration"] for entry in log_of(ended.run)] == list(range(1, ITERATIONS + 1))
    assert ended.state == "finished"


@pytest.mark.parametrize("name", ["SIGKILL", "SIGSTOP"])
def test_its_process_is_lost(name: str, ended: dict[str, Future[Ended]]) -> None:
    assert_it_ended_well(ended[name].result())
    assert "log.jsonl has it all" in ended[name].result().said


def test_a_second_signal_while_the_tracker_is_waited_for(ended: dict[str, Future[Ended]]) -> None:
    run = ended["second signal"].result()
    assert run.code == 75
    assert "Stopped by SIGTERM" in run.said
    assert run.state == "preempted"


@pytest.mark.parametrize("amiss", AMISS)
def test_its_settings_are_amiss(amiss: dict[str, str], ended: dict[str, Future[Ended]]) -> None:
    run = ended[str(amiss)].result()
    assert run.code == 0, run.said
    assert run.state == "finished"
    assert "W&B" in run.said


def test_its_server_is_lost(ended: dict[str, Future[Ended]]) -> None:
    run = ended["server"].result()
    assert_it_ended_well(run)
    assert re.search(r"W&B: http://127.0.0.1:\d+/me/gan/runs/", run.said)


def test_its_server_does_not_answer_and_the_run_goes_offline(ended: dict[str, Future[Ended]]) -> None:
    run = ended["silent"].result()
    assert run.code == 0, run.said
    assert "W&B cannot be reached" in run.said
    assert list((run.run / "wandb").glob("offline-run-*"))
