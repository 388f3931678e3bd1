"""A process that dies or stops answering: the job ends in bounded time, says which one, leaves nothing running."""

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from tests.conftest import ROOT, TINY, assert_same_weights, checkpoint_of, run_module, train, with_processes

LIMIT_S = 5
ENDLESS = ("--iterations", 1_000_000, "--checkpoint.every", 10, "--log-every", 10, "--sample-every", 1_000_000)


def start(run: Path, images: Path) -> tuple[subprocess.Popen[str], list[psutil.Process]]:
    """A run of two processes that has saved its first checkpoint: the launcher, and the processes by rank."""
    words = [*TINY, "--data", images, "--out", run, *ENDLESS, "--distributed.timeout", LIMIT_S]
    command = [sys.executable, "-m", "accelerate.commands.launch", *with_processes(2), ROOT / "train.py", *words]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    launcher = subprocess.Popen([str(word) for word in command], **pipes)  # type: ignore[call-overload]
    while not list((run / "checkpoints").glob("iteration-*")):
        assert launcher.poll() is None
        time.sleep(0.05)
    workers = psutil.Process(launcher.pid).children()
    return launcher, sorted(workers, key=lambda worker: worker.environ()["RANK"])


def lose(name: str, rank: int, run: Path, images: Path) -> Callable[[], str]:
    """Send one of two processes the signal. Called, what is returned waits for the end, judges it, and gives what was
    said."""
    launcher, workers = start(run, images)
    began = time.monotonic()
    workers[rank].send_signal(getattr(signal, name))

    def end() -> str:
        _, err = launcher.communicate(timeout=60)
        seconds = time.monotonic() - began
        print(f"\n{name} to process {rank}: the job ended after {seconds:.1f} s")
        assert launcher.returncode == 1
        assert (
            seconds < 2 * LIMIT_S + 30 + 10
        )  # the limit and a few beats, the launcher's 30 s of patience, a slow machine
        assert not [worker for worker in workers if worker.is_running()]
        return err

    return end


@pytest.fixture(scope="module")
def stopped(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Future[str]]]:
    """A run, one of whose processes has been stopped: other tests take place while its launcher waits for it."""
    run = tmp_path_factory.mktemp("stopped") / "run"
    with ThreadPoolExecutor(1) as pool:
        yield run, pool.submit(lose("SIGSTOP", 1, run, images))


@pytest.mark.usefixtures("stopped")
@pytest.mark.parametrize("rank", [0, 1])
def test_a_process_that_is_killed_ends_the_job(rank: int, images: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    err = lose("SIGKILL", rank, run, images)()
    assert re.search(rf"error: process {1 - rank}: process {rank} on \S+ no longer answers", err)
    assert not list((run / "checkpoints").glob(".unfinished-*")), "what was being written is finished first"
    if rank == 1:
        assert json.loads((run / "status.json").read_text())["state"] == "failed"
    assert f"rank      : {rank} (local_rank: {rank})\n  exitcode  : -9" in err  # the launcher's own report


@pytest.mark.parametrize("batch", ["1", pytest.param("5", marks=pytest.mark.slow)])
def test_a_stuck_process_ends_the_job(
    batch: str, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its threads live, but its main thread sleeps while it fetches images, or waits for the one that does."""
    monkeypatch.setenv("SLEEP_AT", batch)
    words = [*TINY, "--data", images, "--out", tmp_path / "run", *ENDLESS, "--distributed.timeout", LIMIT_S]
    result = run_module("tests.distributed.sleep_on_one", *words, launcher=with_processes(2))
    assert result.returncode == 1
    line = next(line for line in result.stderr.splitlines() if line.startswith("error: "))
    assert "though every process answers: process 0 is in forward (networks/batchnorm.py" in line
    assert re.search(r"process 1 is in \w+ \(data/batches.py", line)


@pytest.mark.slow  # as test_kills.py does, where all processes are killed
def test_it_goes_on_afterwards(images: Path, tmp_path: Path) -> None:
    launcher, workers = start(tmp_path / "run", images)
    workers[1].kill()
    launcher.communicate(timeout=60)
    last = max(int(path.name[-8:]) for path in (tmp_path / "run" / "checkpoints").glob("iteration-*"))
    words = ("--data", images, "--iterations", last + 10)
    train(*words, "--out", tmp_path / "run", launcher=with_processes(2))
    train(*words, "--out", tmp_path / "straight", launcher=with_processes(2))
    assert_same_weights(checkpoint_of(tmp_path / "run", last + 10), checkpoint_of(tmp_path / "straight", last + 10))


def test_a_process_that_is_stopped_ends_the_job(stopped: tuple[Path, Future[str]]) -> None:
    run, said = stopped
    assert_named(1, said.result())
    status = json.loads((run / "status.json").read_text())
    assert status["state"] == "failed"
    assert "process 1 on " in status["reason"]


@pytest.mark.slow
def test_a_first_process_that_is_stopped_ends_the_job(images: Path, tmp_path: Path) -> None:
    assert_named(0, lose("SIGSTOP", 0, tmp_path / "run", images)())


def assert_named(rank: int, said: str) -> None:
    assert f"error: process {rank} on " in said
    assert "no longer answers" in said
