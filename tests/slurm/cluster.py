"""A real Slurm on this machine: a controller and a daemon for each of its nodes, in a folder of their own."""

import contextlib
import getpass
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.conftest import ROOT

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol")
NODES = ("n1", "n2", "n3")
GPUS = 8
"""What each node says it has, so that --gres works as on a real cluster; training falls back to its CPU."""
CONFIGURATION = """
ClusterName=test
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={controller}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobRequeue=1
ReturnToService=2
SchedulerParameters=bf_interval=1,sched_interval=1,sched_min_interval=0,batch_sched_delay=0
MailProg=/bin/true
GresTypes=gpu
{nodes}
PartitionName=normal Nodes=ALL Default=YES PriorityTier=1 PreemptMode=OFF
PartitionName=spare Nodes=ALL PriorityTier=1 GraceTime=60
PartitionName=urgent Nodes=ALL PriorityTier=2
"""


def missing() -> list[str]:
    """The programs that are not installed."""
    return [program for program in PROGRAMS if find(program) is None]


def find(program: str) -> str | None:
    return shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin")


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


OVER = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "PREEMPTED", "OUT_OF_MEMORY")


class Cluster:
    """Three nodes with `cpus` CPUs each, whatever the machine has. Use as a context."""

    def __init__(self, folder: Path, cpus: int = 16):
        self.folder, self.daemons = folder, list[subprocess.Popen[bytes]]()
        nodes = "\n".join(
            f"NodeName={name} NodeHostname=localhost NodeAddr=127.0.0.1 Port={free_port()} CPUs={cpus} Gres=gpu:{GPUS}"
            for name in NODES
        )
        self.configuration = folder / "slurm.conf"
        self.configuration.write_text(
            CONFIGURATION.format(folder=folder, user=getpass.getuser(), controller=free_port(), nodes=nodes)
        )
        for number in range(GPUS):
            (folder / f"gpu{number}").touch()
        (folder / "gres.conf").write_text(f"Name=gpu File={folder}/gpu[0-{GPUS - 1}]\n")
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        self.environment = os.environ | {"SLURM_CONF": str(self.configuration), "PATH": path}

    def __enter__(self) -> "Cluster":
        try:
            self.begin()
        except BaseException:
            self.__exit__()
            raise
        return self

    def begin(self) -> None:
        folder = self.folder
        key = folder / "munge.key"
        key.touch(0o600)
        key.write_bytes(secrets.token_bytes(128))
        (folder / "state").mkdir()
        self.start("munged", "--foreground", "--force", f"--key-file={key}", f"--socket={folder}/munge.socket",
                   f"--pid-file={folder}/munge.pid", f"--seed-file={folder}/munge.seed")  # fmt: skip
        self.start("slurmctld", "-D", "-c")
        for name in NODES:
            (folder / f"spool-{name}").mkdir()
            self.start("slurmd", "-D", "-N", name)
        end = time.monotonic() + 60
        idle = ["idle"] * len(NODES)
        while (said := self.run("sinfo", "-h", "-N", "-p", "normal", "-o", "%T", check=False).split()) != idle:
            assert time.monotonic() < end, f"the nodes do not come up: {said}; see {folder}"
            time.sleep(0.2)

    def start(self, program: str, *words: str) -> None:
        with open(self.folder / f"{program}.out", "ab") as out:
            self.daemons.append(
                subprocess.Popen(
                    [str(find(program)), *words], env=self.environment, stdout=out, stderr=out, start_new_session=True
                )  # a Ctrl-C is not for them: they are needed to clean up
            )

    def __exit__(self, *error: object) -> None:
        """Cancel all jobs, end the daemons, and kill what is left of either."""
        try:
            self.run("scancel", "--user", getpass.getuser(), check=False)
            end = time.monotonic() + 60
            while self.run("squeue", "-h", check=False) and time.monotonic() < end:
                time.sleep(0.2)
        finally:
            for daemon in reversed(self.daemons):
                daemon.terminate()
            for daemon in self.daemons:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    daemon.wait(5)
            for process in psutil.process_iter():
                with contextlib.suppress(psutil.Error):
                    if process.environ().get("SLURM_CONF") == str(self.configuration):
                        process.kill()
            for daemon in self.daemons:
                daemon.wait()

    def run(self, *command: str, check: bool = True, environment: dict[str, str] | None = None) -> str:
        result = subprocess.run(
            command, env=self.environment | (environment or {}), capture_output=True, text=True, timeout=60, cwd=ROOT
        )
        assert not check or result.returncode == 0, (command, result.stdout, result.stderr)
        return result.stdout

    def submit(self, output: Path, *words: object, **environment: str) -> "Job":
        """`words` follow sbatch: its options, a script of slurm/, and the script's arguments."""
        told = self.run("sbatch", "--parsable", "--output", str(output), *map(str, words), environment=environment)
        return Job(self, told.strip(), output)


@dataclass(frozen=True)
class Job:
    cluster: Cluster
    number: str
    output: Path

    def fact(self, name: str) -> str:
        """What Slurm says of the job: JobState, Restarts, ExitCode, …"""
        told = self.cluster.run("scontrol", "show", "job", "--oneliner", self.number)
        return dict(word.partition("=")[::2] for word in told.split())[name]

    def task(self, number: int) -> "Job":
        """One of the tasks of an array, which was submitted with %a in its output."""
        output = self.output.with_name(self.output.name.replace("%a", str(number)))
        return Job(self.cluster, f"{self.number}_{number}", output)

    def until(self, condition: Callable[[], bool], seconds: float = 300) -> None:
        """Asks Slurm itself once a second at most, as others wait too."""
        end, asked = time.monotonic() + seconds, 0.0
        while not condition():
            now = time.monotonic()
            if now > asked + 1:
                over = self.fact("JobState") in OVER and not condition()
                assert now < end and not over, f"waited in vain: {self.fact('JobState')}, {self.said()}"  # noqa: PT018
                asked = now
            time.sleep(0.1)

    def wait(self, seconds: float = 600) -> str:
        """Until the job is over for good: its state."""
        end = time.monotonic() + seconds
        while (state := self.fact("JobState")) not in OVER:
            assert time.monotonic() < end, f"waited in vain: {state}, {self.said()}"
            time.sleep(0.5)
        return state

    def set_limit(self, minutes_from_now: int) -> None:
        hours, minutes, _ = self.fact("RunTime").split(":")
        limit = 60 * int(hours) + int(minutes) + minutes_from_now
        self.cluster.run("scontrol", "update", f"JobId={self.number}", f"TimeLimit={limit}")

    def said(self) -> str:
        return self.output.read_text() if self.output.exists() else ""
