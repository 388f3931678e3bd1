"""Told to stop, a run finishes its iteration, saves, says so, and leaves no process behind."""

import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from accelerate import Accelerator

from gan.orphans import LAUNCHERS
from gan.preemption import Preemption
from tests.conftest import ROOT, TINY, assert_same_weights, checkpoint_of, train, with_processes
from tests.faults.jobs import Job, gone, name_of, seconds_until, status_of
from tests.forked import server

ENDLESS = ("--iterations", 1_000_000, "--checkpoint.every", 1_000_000, "--log-every", 5, "--sample-every", 1_000_000)


def stopped(job: Job, number: int, target: int | None = None) -> int:
    """Send the signal, to `target` or what was started, and Ctrl-C as a terminal does to all of its processes; check
    what is left; the iteration that was saved."""
    workers = job.wait_for_iteration(5).workers()
    send = os.killpg if number == signal.SIGINT else os.kill
    send(target if target is not None else job.process.pid, number)
    took = seconds_until(lambda: status_of(job.run)["state"] != "running")
    code, said = job.end()
    status = status_of(job.run)
    print(f"\n{job.starter}, {name_of(number)}: {took:.2f} s from the signal to the checkpoint and status.json")
    assert status["state"] == "preempted", said
    assert took < 5
    assert seconds_until(lambda: gone(workers)) < 20
    saved = checkpoint_of(job.run, status["iteration"])
    assert saved.state["iteration"] == status["iteration"] >= 5
    if job.starter.endswith("python"):
        assert code == 75
        assert status["reason"] == name_of(number)
        assert f"Stopped by {name_of(number)}; saved at iteration {status['iteration']}" in said
        assert "error" not in said
    else:
        assert code != 0
    return int(status["iteration"])


RARE = pytest.mark.slow
ALONE = [
    signal.SIGTERM,
    pytest.param(signal.SIGUSR1, marks=RARE),
    pytest.param(signal.SIGUSR2, marks=RARE),
    signal.SIGINT,
    signal.SIGHUP,
]


@pytest.mark.parametrize("number", ALONE, ids=name_of)
def test_one_process(number: int, images: Path, tmp_path: Path) -> None:
    stopped(Job("python", tmp_path / "run", "--data", images, *ENDLESS), number)


def test_what_was_ignored_from_the_start_is_no_reason_to_stop(images: Path, tmp_path: Path) -> None:
    job = Job("deaf python", tmp_path / "run", "--data", images, *ENDLESS).wait_for_iteration(5)
    for number in (signal.SIGHUP, signal.SIGINT):
        job.process.send_signal(number)
    job.wait_for_iteration(status_of(job.run)["iteration"] + 20)
    stopped(job, signal.SIGTERM)


LAUNCHED = [
    pytest.param(starter, number, id=f"{starter}-{name_of(number)}", marks=[RARE] if often else [])
    for starter, number, often in (
        ("accelerate launch", signal.SIGTERM, False),
        ("accelerate launch", signal.SIGUSR1, False),
        ("accelerate launch", signal.SIGINT, True),
        ("two processes", signal.SIGTERM, False),
        ("two processes", signal.SIGUSR1, True),
        ("two processes", signal.SIGINT, True),
        ("two processes", signal.SIGHUP, True),
        ("torchrun", signal.SIGTERM, True),
        ("torchrun", signal.SIGUSR1, False),
        ("torchrun", signal.SIGINT, False),
    )
]


@pytest.mark.parametrize(("starter", "number"), LAUNCHED)
def test_a_launcher(starter: str, number: int, images: Path, tmp_path: Path) -> None:
    """Whether it passes the signal on, or just dies of it."""
    stopped(Job(starter, tmp_path / "run", "--data", images, *ENDLESS), number)


@pytest.mark.parametrize("rank", [pytest.param(0, marks=RARE), 1])
def test_one_of_two_processes_is_told_and_the_run_goes_on_as_if_it_had_not_been(
    rank: int, images: Path, tmp_path: Path
) -> None:
    job = Job("two processes", tmp_path / "run", "--data", images, *ENDLESS).wait_for_iteration(1)
    done = stopped(job, signal.SIGUSR1, job.workers()[rank].pid)
    words = ("--data", images, "--iterations", done + 4, "--log-every", 5)
    train(*words, "--out", tmp_path / "run", launcher=with_processes(2))
    train(*words, "--out", tmp_path / "straight", launcher=with_processes(2))
    assert_same_weights(checkpoint_of(tmp_path / "run", done + 4), checkpoint_of(tmp_path / "straight", done + 4))


def test_a_second_ctrl_c_stops_at_once(images: Path, tmp_path: Path) -> None:
    """Here the first one cannot be obeyed: the process is stuck in a save to a pipe that nobody reads."""
    job = Job("python", tmp_path / "run", "--data", images, *ENDLESS)
    job.wait_for_iteration(5)
    pipe = tmp_path / "run" / f".{job.process.pid}-status.json"  # the main thread has its process' number
    pipe.unlink(missing_ok=True)
    os.mkfifo(pipe)
    job.process.send_signal(signal.SIGINT)
    time.sleep(1.5)
    assert job.process.poll() is None
    job.process.send_signal(signal.SIGINT)
    code, said = job.end(10)
    assert code == 130
    assert "Stopped at once" in said


def insist(times: int, environment: dict[str, str]) -> None:
    """So many Ctrl-C in a run."""
    for name in LAUNCHERS:  # of these tests themselves
        os.environ.pop(name, None)
    os.environ.update(environment)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which is ignored where the tests were started with &
    with Preemption(Accelerator(cpu=True)):
        for _ in range(times):
            signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize(("launched", "enough"), [({}, 2), ({"TORCHELASTIC_RUN_ID": "none"}, 3)])
def test_as_many_as_a_launcher_may_make_of_one_do_not_stop_it(launched: dict[str, str], enough: int) -> None:
    """A terminal sends it to all processes, and a launcher that gets it may send it to its own once more."""
    for times in (enough - 1, enough):
        process = server.Process(target=insist, args=(times, launched))
        process.start()
        process.join(60)
        assert process.exitcode == (130 if times == enough else 0)


def test_a_launcher_that_dies_before_training_leaves_nothing(images: Path, tmp_path: Path) -> None:
    """While its process still imports what it needs."""
    job = Job("accelerate launch", tmp_path / "run", "--data", images, *ENDLESS)
    job.until(lambda: bool(job.workers()))
    workers = job.workers()
    job.process.send_signal(signal.SIGTERM)
    job.end(20)
    seconds_until(lambda: gone(workers), limit=5)


def test_a_process_whose_launcher_is_gone_before_it_begins(images: Path, tmp_path: Path) -> None:
    """It finds that another process has adopted it."""
    run = (*TINY, "--data", images, "--out", tmp_path, *ENDLESS)
    words = shlex.join(map(str, (sys.executable, ROOT / "train.py", *run)))
    environment = {**os.environ, "ACCELERATE_MIXED_PRECISION": "no", "ACCELERATE_DYNAMO_BACKEND": "no"}
    late = ["sh", "-c", f"(sleep 0.3; exec {words}) > {tmp_path}/said.txt 2>&1 & echo $!"]
    started = subprocess.run(late, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    if psutil.Process(int(started.stdout)).ppid() != 1:
        pytest.skip("on this machine another process than the first adopts orphans")
    seconds_until(lambda: not psutil.pid_exists(int(started.stdout)), limit=20)
    assert "iterations" not in (tmp_path / "said.txt").read_text()
