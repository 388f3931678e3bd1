"""The shipped scripts, submitted with sbatch to a real Slurm of two nodes."""

import contextlib
import json
import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tests.conftest import ROOT, TINY, assert_same_weights, checkpoint_of, largest_difference, train
from tests.faults.jobs import seconds_until, status_of
from tests.slurm.cluster import Cluster, Job, missing

SINGLE, MULTI, SWEEP = (f"slurm/{name}.sbatch" for name in ("train_single_node", "train_multi_node", "sweep_array"))
EVALUATE = "slurm/evaluate.sbatch"
CPU = ("--gres", "none", "--cpus-per-task", 1)
LONG = ("--iterations", 1000, "--checkpoint.every", 1, "--log-every", 10, "--seed", 3)
"""Some 40 s, most of them spent waiting for the disk: long enough to be stopped on any machine."""
SHORT = ("--iterations", 20, "--dtype", "float64", "--seed", 4)
ODD = """it's "odd" $(touch pwned); `touch pwned` & *"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    if absent := missing():
        reason = f"Slurm is not installed: no {', '.join(absent)} (on Debian: apt install slurm-wlm munge)"
        assert "GAN_TEST_SLURM" not in os.environ, reason
        pytest.skip(reason)
    with Cluster(tmp_path_factory.mktemp("slurm")) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def submit(cluster: Cluster, images: Path, runs: Path) -> Callable[..., Job]:
    """Have a run trained in runs/NAME: words for sbatch, and those for train.py."""

    def submit(name: str, script: str, options: tuple[object, ...], *words: object, **environment: str) -> Job:
        command = (*CPU, *options, script, *TINY, "--data", images, "--out", runs / name, *words)
        return cluster.submit(runs / f"{name}.out", *command, **environment)

    return submit


@pytest.fixture(scope="module")
def jobs(cluster: Cluster, submit: Callable[..., Job], images: Path, runs: Path) -> dict[str, Job]:
    """All of them, submitted at once: the nodes have room for two each. Two are disturbed on their way."""
    everything = ("--partition", "spare", "--gres", "gpu:6")
    shutil.copytree(images, runs / ODD)
    (runs / "flags.txt").write_text(
        "--seed 1\n--seed '2' --sample-every 1\n--seed 3 --optim-g.lr \"3e-4\"\n\n--seed 5 'cut\n"
    )
    odd = (
        *CPU,
        "--export",
        "PATH,SLURM_CONF,XDG_CACHE_HOME",
        SINGLE,
        *TINY,
        "--data",
        runs / ODD,
        "--out",
        runs / f"{ODD} run",
        "--iterations",
        2,
    )
    sweep = (*CPU, "--array", "1-5", SWEEP, runs / "flags.txt", runs / "sweep", *TINY, "--data", images)
    jobs = {
        "time limit": submit("time limit", MULTI, ("--signal", "B:USR1@120"), *LONG, "--track.wandb", "offline"),
        "preempted": submit("preempted", MULTI, everything, *LONG, PROCESSES_PER_NODE="1"),
    }
    for name, job in jobs.items():
        job.until(lambda: status_of(runs / name).get("iteration", 0) >= 20)  # noqa: B023
    jobs["time limit"].set_limit(minutes_from_now=2)  # Slurm looks every 30 s for whom the signal is due
    urgent = ("--partition", "urgent", "--nodes", 2, "--gres", "gpu:4", "--wrap", "sleep 1")
    jobs |= {
        "urgent": cluster.submit(runs / "urgent.out", *urgent),
        "uninterrupted": submit("uninterrupted", MULTI, (), *LONG),
        "two nodes": submit("two nodes", MULTI, (), *SHORT, SLURM_STDOUTMODE=f"{runs}/of task %t.out"),
        "one node": submit("one node", SINGLE, ("--gres", "gpu:2"), *SHORT),
        "cancelled": submit("cancelled", SINGLE, (), "--iterations", 1_000_000, "--log-every", 1),
        "failing": submit("failing", MULTI, (), "--iterations", 2, "--data", runs / "nothing"),
        "odd": cluster.submit(runs / "odd.out", *odd),
        "sweep": cluster.submit(runs / "sweep-%a.out", *sweep, "--iterations", 2),
    }
    for name, word in (("preempted", "CANCELLED AT"), ("time limit", "told to stop")):
        seconds_until(lambda: word in jobs[name].said())  # noqa: B023
        seconds = seconds_until(lambda: status_of(runs / name)["state"] == "preempted")  # noqa: B023
        print(f"{name}: {seconds:.1f} s from the signal to the checkpoint")
    jobs["time limit"].until(lambda: jobs["time limit"].fact("Restarts") == "1")
    jobs["time limit"].set_limit(minutes_from_now=60)
    return jobs


def test_a_job_that_is_preempted_goes_on_later(jobs: dict[str, Job], runs: Path) -> None:
    job = jobs["preempted"]
    assert job.wait() == "COMPLETED", job.said()
    assert jobs["uninterrupted"].wait() == "COMPLETED"
    assert int(job.fact("Restarts")) >= 1
    assert "Stopped by SIGTERM" in job.said()
    assert_same_weights(checkpoint_of(runs / "preempted", 1000), checkpoint_of(runs / "uninterrupted", 1000))
    facts = json.loads((runs / "preempted" / "environment.json").read_text())
    assert facts["slurm_restart_count"] == job.fact("Restarts")


def test_a_job_whose_time_is_up_goes_on_later(jobs: dict[str, Job], runs: Path) -> None:
    job, run = jobs["time limit"], runs / "time limit"
    assert job.wait() == "COMPLETED", job.said()
    assert jobs["uninterrupted"].wait() == "COMPLETED"
    assert "Stopped by SIGUSR1" in job.said()
    assert_same_weights(checkpoint_of(run, 1000), checkpoint_of(runs / "uninterrupted", 1000))
    lines = [json.loads(line)["iteration"] for line in (run / "log.jsonl").read_text().splitlines()]
    assert lines == list(range(10, 1001, 10))
    names = {path.name[-8:] for path in (run / "wandb").glob("offline-run-*")}
    assert names == {(run / "wandb" / "id.txt").read_text()}, "every restart is the same run to W&B"


@pytest.mark.parametrize(("name", "processes"), [("two nodes", 2), ("one node", 2)])
def test_equal_to_one_process(name: str, processes: int, jobs: dict[str, Job], images: Path, runs: Path) -> None:
    if not (runs / "alone").exists():
        train("--data", images, "--out", runs / "alone", *SHORT)
    assert jobs[name].wait() == "COMPLETED", jobs[name].said()
    facts = json.loads((runs / name / "environment.json").read_text())
    assert (facts["processes"], facts["threads"]) == (processes, 1), "of the node's cores one, as --cpus-per-task says"
    assert largest_difference(checkpoint_of(runs / name, 20), checkpoint_of(runs / "alone", 20)) < 1e-11


def test_every_task_may_have_a_file_of_its_own(jobs: dict[str, Job], runs: Path) -> None:
    assert jobs["two nodes"].wait() == "COMPLETED"
    assert "iteration 20/20" in (runs / "of task 0.out").read_text()
    assert (runs / "of task 1.out").exists()


def test_a_cancelled_job_leaves_a_run_to_go_on_with(jobs: dict[str, Job], images: Path, runs: Path) -> None:
    job, run = jobs["cancelled"], runs / "cancelled"
    job.until(lambda: status_of(run).get("iteration", 0) >= 20)
    job.cluster.run("scancel", job.number)
    assert job.wait() == "CANCELLED"
    assert processes_of(run) == []
    status = status_of(run)
    assert status["state"] == "preempted"
    end = status["iteration"] + 3
    said = train("--data", images, "--out", run, "--iterations", end, "--log-every", 1)
    assert f"Going on from {run}/checkpoints/iteration-{status['iteration']:08d}" in said
    assert job.fact("JobState") == "CANCELLED", "it stays so"


def processes_of(run: Path) -> list[psutil.Process]:
    """Those that have the run folder in their command."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if any(str(run) == word for word in process.cmdline()):
                found.append(process)
    return found


def test_a_job_that_fails_stays_failed(jobs: dict[str, Job]) -> None:
    job = jobs["failing"]
    assert job.wait() == "FAILED"
    assert job.fact("Restarts") == "0"
    assert job.said().count("error: there is no") == 1


def test_arguments_arrive_as_they_were_typed(jobs: dict[str, Job], runs: Path) -> None:
    assert jobs["odd"].wait() == "COMPLETED", jobs["odd"].said()
    assert status_of(runs / f"{ODD} run")["state"] == "finished"
    assert not list(Path.cwd().glob("pwned"))


def test_a_run_is_evaluated(jobs: dict[str, Job], images: Path, runs: Path) -> None:
    assert jobs["two nodes"].wait() == "COMPLETED"
    words = (runs / "two nodes", "--data", images, "--metrics", "swd", "--count", 20)
    job = jobs["two nodes"].cluster.submit(runs / "evaluate.out", *CPU, "--gres", "gpu:2", EVALUATE, *words)
    assert job.wait() == "COMPLETED", job.said()
    entries = json.loads((runs / "two nodes" / "evaluation.json").read_text())
    assert [(entry["metric"], entry["iteration"], entry["protocol"]["fake"]) for entry in entries] == [("swd", 20, 20)]
    assert f"{entries[0]['values']['swd']:.4g}" in job.said()


def test_a_sweep_has_a_run_for_each_line(jobs: dict[str, Job], runs: Path) -> None:
    for task in (1, 2, 3):
        job = Job(jobs["sweep"].cluster, f"{jobs['sweep'].number}_{task}", runs / f"sweep-{task}.out")
        assert job.wait() == "COMPLETED", job.said()
        settings = (runs / "sweep" / str(task) / "config.yaml").read_text()
        assert f"seed: {task}\n" in settings
        assert ("lr: 0.0003\n" in settings) == (task == 3)
    assert len(list((runs / "sweep" / "2" / "samples").glob("iteration-????????.png"))) == 2
    for task, complaint in ((4, "line 4 of"), (5, "unmatched single quote")):
        job = Job(jobs["sweep"].cluster, f"{jobs['sweep'].number}_{task}", runs / f"sweep-{task}.out")
        assert (job.wait(), job.fact("ExitCode")) == ("FAILED", "2:0")
        assert complaint in job.said()


def test_a_task_of_an_array_stops_and_comes_back_alone(cluster: Cluster, images: Path, runs: Path) -> None:
    """The last one, whose number is that of the whole array."""
    (runs / "two.txt").write_text("--iterations 2\n--iterations 1000000\n")
    words = (*CPU, "--array", "1-2", SWEEP, runs / "two.txt", runs / "array", *TINY, "--data", images, "--log-every", 1)
    number = cluster.submit(runs / "array-%a.out", *words).number
    first, last = (Job(cluster, f"{number}_{task}", runs / f"array-{task}.out") for task in (1, 2))
    assert first.wait() == "COMPLETED", first.said()
    last.until(lambda: status_of(runs / "array" / "2").get("iteration", 0) >= 2)
    cluster.run("scancel", "--batch", "--signal", "USR1", last.number)
    last.until(lambda: "Going on from" in last.said())
    cluster.run("scancel", last.number)
    assert last.wait() == "CANCELLED"
    assert (first.fact("JobState"), first.fact("Restarts"), last.fact("Restarts")) == ("COMPLETED", "0", "1")


def test_preempted_before_it_trains_it_comes_back(cluster: Cluster, submit: Callable[..., Job], runs: Path) -> None:
    where = ("--partition", "spare", "--gres", "gpu:8", "--nodelist", "n1")
    job = submit("early", SINGLE, where, "--iterations", 2, PROCESSES_PER_NODE="1")
    job.until(lambda: "restart 0 on" in job.said())
    urgent = ("--partition", "urgent", "--gres", "gpu:4", "--nodelist", "n1", "--wrap", "sleep 1")
    assert cluster.submit(runs / "urgent-2.out", *urgent).wait() == "COMPLETED"
    assert job.wait() == "COMPLETED", job.said()
    assert job.fact("Restarts") == "1"


def test_what_was_to_begin_anew_does_so_after_an_early_stop(
    submit: Callable[..., Job], images: Path, runs: Path
) -> None:
    train("--data", images, "--out", runs / "anew", "--iterations", 2)
    job = submit("anew", SINGLE, (), "--iterations", 3, "--resume", "never")
    job.until(lambda: "restart 0 on" in job.said())
    job.cluster.run("scancel", "--batch", "--signal", "USR1", job.number)
    assert job.wait() == "COMPLETED", job.said()
    assert job.fact("Restarts") == "1"
    assert (runs / "anew" / "previous-1" / "checkpoints" / "iteration-00000002").is_dir()
    assert "Going on from" not in job.said()


def test_a_port_that_is_taken_is_passed_over() -> None:
    with socket.create_server(("127.0.0.1", 10_123)):
        command = ["bash", "-c", "source slurm/job.sh && free_port"]
        environment = os.environ | {"SLURM_JOB_ID": "60123"}
        told = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert int(told) == 10_123 + 7919


def test_a_job_that_gets_nowhere_is_given_up(submit: Callable[..., Job]) -> None:
    job = submit("nowhere", SINGLE, (), "--iterations", 1_000_000, MAX_REQUEUES_WITHOUT_PROGRESS="1")
    for number in (1, 2):
        job.until(lambda: job.said().count("restart") == number)  # noqa: B023
        job.cluster.run("scancel", "--batch", "--signal", "USR1", job.number)
    assert job.wait() == "FAILED", job.said()
    assert "given up" in job.said()
    assert job.fact("Restarts") == "1"
