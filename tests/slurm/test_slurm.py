"""The shipped scripts, submitted with sbatch to a real Slurm of three nodes.

Slurm takes its time: it looks every 30 s for whose time is up, and a job that was requeued waits. So all that the jobs
go through goes on at once, each scenario in a thread of its own; the tests judge how it ended.
"""

import contextlib
import json
import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from tests.conftest import ROOT, TINY, assert_same_weights, checkpoint_of, largest_difference, log_of, train
from tests.faults.jobs import seconds_until, status_of
from tests.slurm.cluster import Cluster, Job, missing

SINGLE, MULTI, SWEEP = (f"slurm/{name}.sbatch" for name in ("train_single_node", "train_multi_node", "sweep_array"))
EVALUATE = "slurm/evaluate.sbatch"
CPU = ("--gres", "none", "--cpus-per-task", 1)
ENDLESS = ("--iterations", 1_000_000, "--log-every", 1)
LONG = ("--log-every", 10, "--seed", 3)
SHORT = ("--iterations", 20, "--dtype", "float64", "--seed", 4)
STEP = 50
"""Runs that were stopped end, and are compared, at a multiple of so many iterations."""
ODD = """it's "odd" $(touch pwned); `touch pwned` & *"""


@dataclass(frozen=True)
class Site:
    """A cluster, the images that all runs are trained on, a folder for the runs, and where those that were stopped
    end: name → iteration."""

    cluster: Cluster
    images: Path
    runs: Path
    ends: dict[str, int] = field(default_factory=dict)

    def submit(self, name: str, script: str, options: tuple[object, ...], *words: object, **environment: str) -> Job:
        """Have a run trained in runs/NAME: words for sbatch, and those for train.py."""
        command = (*CPU, *options, script, *TINY, "--data", self.images, "--out", self.runs / name, *words)
        return self.cluster.submit(self.runs / f"{name}.out", *command, **environment)

    def submit_endless(self, name: str, options: tuple[object, ...], *words: object, **environment: str) -> Job:
        """A run on two nodes, under way: it saves all the time, and has no end before `end_soon`."""
        recipe = self.runs / f"{name}.yaml"  # is read at every start
        recipe.write_text("iterations: 1000000\ncheckpoint: {every: 1}\n")
        job = self.submit(name, MULTI, options, "--recipe", recipe, *LONG, *words, **environment)
        self.until_iteration(20, name, job)
        return job

    def until_iteration(self, iteration: int, name: str, job: Job) -> None:
        job.until(lambda: status_of(self.runs / name).get("iteration", 0) >= iteration)

    def end_soon(self, name: str, job: Job, word: str) -> None:
        """Wait until an endless run has been told to stop, which the word shows, and has saved. Once it comes back, it
        goes on to the next multiple of STEP."""
        seconds_until(lambda: word in job.said(), limit=200)
        seconds = seconds_until(lambda: status_of(self.runs / name)["state"] == "preempted")
        print(f"{name}: {seconds:.1f} s from the signal to the checkpoint")
        self.ends[name] = (status_of(self.runs / name)["iteration"] // STEP + 1) * STEP
        (self.runs / f"{name}.yaml").write_text(f"iterations: {self.ends[name]}\n")


def is_preempted(site: Site) -> Job:
    where = ("--nodelist", "n1,n2", "--nodes", 2)
    job = site.submit_endless("preempted", (*where, "--partition", "spare", "--gres", "gpu:6"), PROCESSES_PER_NODE="1")
    urgent = (*where, "--partition", "urgent", "--gres", "gpu:4", "--wrap", "sleep 1")
    site.cluster.submit(site.runs / "urgent.out", *urgent)
    site.end_soon("preempted", job, "CANCELLED AT")
    return job


def runs_out_of_time(site: Site) -> Job:
    job = site.submit_endless("time limit", ("--signal", "B:USR1@120"), "--track.wandb", "offline")
    job.set_limit(minutes_from_now=2)  # Slurm looks every 30 s for whom the signal is due
    site.end_soon("time limit", job, "told to stop")
    job.until(lambda: job.fact("Restarts") == "1")
    job.set_limit(minutes_from_now=60)
    return job


def is_left_alone(site: Site) -> Job:
    """For as long as the two above."""
    seconds_until(lambda: len(site.ends) == 2, limit=300)
    words = ("--iterations", max(site.ends.values()), "--checkpoint.every", STEP, "--checkpoint.keep", 1000)
    return site.submit("uninterrupted", MULTI, (), "--recipe", site.runs / "preempted.yaml", *LONG, *words)


def is_on_two_nodes(site: Site) -> Job:
    return site.submit("two nodes", MULTI, (), *SHORT, SLURM_STDOUTMODE=f"{site.runs}/of task %t.out")


def is_on_one_node(site: Site) -> Job:
    return site.submit("one node", SINGLE, ("--gres", "gpu:2"), *SHORT)


def is_cancelled(site: Site) -> Job:
    job = site.submit("cancelled", SINGLE, (), *ENDLESS)
    site.until_iteration(20, "cancelled", job)
    site.cluster.run("scancel", job.number)
    return job


def fails(site: Site) -> Job:
    return site.submit("failing", MULTI, (), "--iterations", 2, "--data", site.runs / "nothing")


def has_odd_names(site: Site) -> Job:
    shutil.copytree(site.images, site.runs / ODD)
    options = (*CPU, "--export", "PATH,SLURM_CONF,XDG_CACHE_HOME")
    words = ("--data", site.runs / ODD, "--out", site.runs / f"{ODD} run", "--iterations", 2)
    return site.cluster.submit(site.runs / "odd.out", *options, SINGLE, *TINY, *words)


def sweeps(site: Site) -> Job:
    (site.runs / "flags.txt").write_text(
        "--seed 1\n--seed '2' --sample-every 1\n--seed 3 --optim-g.lr \"3e-4\"\n\n--seed 5 'cut\n"
    )
    words = (site.runs / "flags.txt", site.runs / "sweep", *TINY, "--data", site.images, "--iterations", 2)
    return site.cluster.submit(site.runs / "sweep-%a.out", *CPU, "--array", "1-5", SWEEP, *words)


def loses_a_task(site: Site) -> Job:
    """An array of two. The last task, whose number is that of the whole array, is told to stop, comes back, and is
    cancelled."""
    (site.runs / "two.txt").write_text("--iterations 2\n--iterations 1000000\n")
    words = (site.runs / "two.txt", site.runs / "array", *TINY, "--data", site.images, "--log-every", 1)
    job = site.cluster.submit(site.runs / "array-%a.out", *CPU, "--array", "1-2", SWEEP, *words)
    first, last = job.task(1), job.task(2)
    first.wait()
    site.until_iteration(2, "array/2", last)
    site.cluster.run("scancel", "--batch", "--signal", "USR1", last.number)
    last.until(lambda: "Going on from" in last.said())
    site.cluster.run("scancel", last.number)
    return job


def is_preempted_before_it_trains(site: Site) -> Job:
    where = ("--partition", "spare", "--gres", "gpu:6", "--nodelist", "n3")
    job = site.submit("early", SINGLE, where, "--iterations", 2, PROCESSES_PER_NODE="1")
    job.until(lambda: "restart 0 on" in job.said())
    urgent = ("--partition", "urgent", "--gres", "gpu:4", "--nodelist", "n3", "--wrap", "sleep 1")
    assert site.cluster.submit(site.runs / "urgent-2.out", *urgent).wait() == "COMPLETED"
    return job


def begins_anew_and_is_stopped_early(site: Site) -> Job:
    train("--data", site.images, "--out", site.runs / "anew", "--iterations", 2)
    job = site.submit("anew", SINGLE, (), "--iterations", 3, "--resume", "never")
    job.until(lambda: "restart 0 on" in job.said())
    site.cluster.run("scancel", "--batch", "--signal", "USR1", job.number)
    return job


def gets_nowhere(site: Site) -> Job:
    job = site.submit("nowhere", SINGLE, (), *ENDLESS, MAX_REQUEUES_WITHOUT_PROGRESS="1")
    for number in (1, 2):
        job.until(lambda: job.said().count("restart") == number)  # noqa: B023
        site.cluster.run("scancel", "--batch", "--signal", "USR1", job.number)
    return job


SCENARIOS: dict[str, Callable[[Site], Job]] = {
    "time limit": runs_out_of_time,
    "preempted": is_preempted,
    "uninterrupted": is_left_alone,
    "two nodes": is_on_two_nodes,
    "one node": is_on_one_node,
    "cancelled": is_cancelled,
    "failing": fails,
    "odd": has_odd_names,
    "sweep": sweeps,
    "array": loses_a_task,
    "early": is_preempted_before_it_trains,
    "anew": begins_anew_and_is_stopped_early,
    "nowhere": gets_nowhere,
}


@pytest.fixture(scope="module")
def site(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    if absent := missing():
        reason = f"Slurm is not installed: no {', '.join(absent)} (on Debian: apt install slurm-wlm munge)"
        assert "GAN_TEST_SLURM" not in os.environ, reason
        pytest.skip(reason)
    with Cluster(tmp_path_factory.mktemp("slurm")) as cluster:
        yield Site(cluster, images, tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def runs(site: Site) -> Path:
    return site.runs


@pytest.fixture(scope="module")
def jobs(site: Site) -> Iterator[dict[str, Future[Job]]]:
    """Of the scenarios, all of which begin now."""
    with ThreadPoolExecutor(len(SCENARIOS)) as pool:
        yield {name: pool.submit(scenario, site) for name, scenario in SCENARIOS.items()}


def completed(job: Future[Job]) -> Job:
    assert job.result().wait() == "COMPLETED", job.result().said()
    return job.result()


def test_a_job_that_fails_stays_failed(jobs: dict[str, Future[Job]]) -> None:
    job = jobs["failing"].result()
    assert job.wait() == "FAILED"
    assert job.fact("Restarts") == "0"
    assert job.said().count("error: there is no") == 1


def test_arguments_arrive_as_they_were_typed(jobs: dict[str, Future[Job]], runs: Path) -> None:
    completed(jobs["odd"])
    assert status_of(runs / f"{ODD} run")["state"] == "finished"
    assert not list(Path.cwd().glob("pwned"))


@pytest.mark.parametrize(("name", "processes"), [("two nodes", 2), ("one node", 2)])
def test_equal_to_one_process(
    name: str, processes: int, jobs: dict[str, Future[Job]], images: Path, runs: Path
) -> None:
    if not (runs / "alone").exists():
        train("--data", images, "--out", runs / "alone", *SHORT)
    completed(jobs[name])
    facts = json.loads((runs / name / "environment.json").read_text())
    assert (facts["processes"], facts["threads"]) == (processes, 1), "of the node's cores one, as --cpus-per-task says"
    assert largest_difference(checkpoint_of(runs / name, 20), checkpoint_of(runs / "alone", 20)) < 1e-11


def test_every_task_may_have_a_file_of_its_own(jobs: dict[str, Future[Job]], runs: Path) -> None:
    completed(jobs["two nodes"])
    assert "iteration 20/20" in (runs / "of task 0.out").read_text()
    assert (runs / "of task 1.out").exists()


def test_a_run_is_evaluated(jobs: dict[str, Future[Job]], site: Site, images: Path, runs: Path) -> None:
    completed(jobs["two nodes"])
    words = (runs / "two nodes", "--data", images, "--metrics", "swd", "--count", 20)
    job = site.cluster.submit(runs / "evaluate.out", *CPU, "--gres", "gpu:2", EVALUATE, *words)
    assert job.wait() == "COMPLETED", job.said()
    entries = json.loads((runs / "two nodes" / "evaluation.json").read_text())
    assert [(entry["metric"], entry["iteration"], entry["protocol"]["fake"]) for entry in entries] == [("swd", 20, 20)]
    assert f"{entries[0]['values']['swd']:.4g}" in job.said()


def test_a_sweep_has_a_run_for_each_line(jobs: dict[str, Future[Job]], runs: Path) -> None:
    for number in (1, 2, 3):
        task = jobs["sweep"].result().task(number)
        assert task.wait() == "COMPLETED", task.said()
        settings = (runs / "sweep" / str(number) / "config.yaml").read_text()
        assert f"seed: {number}\n" in settings
        assert ("lr: 0.0003\n" in settings) == (number == 3)
    assert len(list((runs / "sweep" / "2" / "samples").glob("iteration-????????.png"))) == 2
    for number, complaint in ((4, "line 4 of"), (5, "unmatched single quote")):
        task = jobs["sweep"].result().task(number)
        assert (task.wait(), task.fact("ExitCode")) == ("FAILED", "2:0")
        assert complaint in task.said()


def test_a_cancelled_job_leaves_a_run_to_go_on_with(jobs: dict[str, Future[Job]], images: Path, runs: Path) -> None:
    job, run = jobs["cancelled"].result(), runs / "cancelled"
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


def test_preempted_before_it_trains_it_comes_back(jobs: dict[str, Future[Job]]) -> None:
    assert completed(jobs["early"]).fact("Restarts") == "1"


def test_what_was_to_begin_anew_does_so_after_an_early_stop(jobs: dict[str, Future[Job]], runs: Path) -> None:
    job = completed(jobs["anew"])
    assert job.fact("Restarts") == "1"
    assert (runs / "anew" / "previous-1" / "checkpoints" / "iteration-00000002").is_dir()
    assert "Going on from" not in job.said()


def test_a_job_that_gets_nowhere_is_given_up(jobs: dict[str, Future[Job]]) -> None:
    job = jobs["nowhere"].result()
    assert job.wait() == "FAILED", job.said()
    assert "given up" in job.said()
    assert job.fact("Restarts") == "1"


def test_a_task_of_an_array_stops_and_comes_back_alone(jobs: dict[str, Future[Job]]) -> None:
    first, last = (jobs["array"].result().task(number) for number in (1, 2))
    assert last.wait() == "CANCELLED"
    assert (first.fact("JobState"), first.fact("Restarts"), last.fact("Restarts")) == ("COMPLETED", "0", "1")


def test_a_port_that_is_taken_is_passed_over() -> None:
    with socket.create_server(("127.0.0.1", 10_123)):
        command = ["bash", "-c", "source slurm/job.sh && free_port"]
        environment = os.environ | {"SLURM_JOB_ID": "60123"}
        told = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert int(told) == 10_123 + 7919


def test_a_job_that_is_preempted_goes_on_later(jobs: dict[str, Future[Job]], site: Site) -> None:
    job = completed(jobs["preempted"])
    assert int(job.fact("Restarts")) >= 1
    assert "Stopped by SIGTERM" in job.said()
    assert_as_if_left_alone("preempted", jobs, site)
    facts = json.loads((site.runs / "preempted" / "environment.json").read_text())
    assert facts["slurm_restart_count"] == job.fact("Restarts")


def test_a_job_whose_time_is_up_goes_on_later(jobs: dict[str, Future[Job]], site: Site) -> None:
    job, run = completed(jobs["time limit"]), site.runs / "time limit"
    assert "Stopped by SIGUSR1" in job.said()
    assert_as_if_left_alone("time limit", jobs, site)
    assert [entry["iteration"] for entry in log_of(run)] == list(range(10, site.ends["time limit"] + 1, 10))
    names = {path.name[-8:] for path in (run / "wandb").glob("offline-run-*")}
    assert names == {(run / "wandb" / "id.txt").read_text()}, "every restart is the same run to W&B"


def assert_as_if_left_alone(name: str, jobs: dict[str, Future[Job]], site: Site) -> None:
    completed(jobs["uninterrupted"])
    end = site.ends[name]
    assert_same_weights(checkpoint_of(site.runs / name, end), checkpoint_of(site.runs / "uninterrupted", end))
