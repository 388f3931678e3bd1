"""The commands: train.py, and `gan` with its subcommands."""

import contextlib
import functools
import io
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import tyro

from gan.config import parse, plain_refusals
from gan.data.pack import write_pack
from gan.errors import ProcessError, UserFault
from gan.sample import write_samples
from gan.telemetry.console import fall_silent


def guarded(command: Callable[[], None]) -> int:
    """Run a command; a fault the user can act on becomes one sentence and an exit status."""
    for stream in (sys.stdout, sys.stderr):  # a file name that the terminal cannot show is no reason to fail
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        command()
    except UserFault as fault:
        if speaks(fault):
            with contextlib.suppress(OSError):
                print(f"{fault.label}{' '.join(str(fault).split())}", file=sys.stderr, flush=True)
        return fault.exit_status
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr, flush=True)
        return 130
    return 0


def speaks(fault: UserFault) -> bool:
    """Whether this process prints the fault: once for all where they have agreed on it, else once on each machine."""
    rank = os.environ.get("RANK" if fault.agreed else "LOCAL_RANK", "0")
    return rank == "0" or isinstance(fault, ProcessError)


def train(arguments: list[str]) -> int:
    """What train.py does: flags → Config → a run. Returns the exit status."""

    def run() -> None:
        config = parse(arguments)
        from gan.trainer import train  # after the flags are known to be right: this import takes seconds

        train(config)

    status = guarded(run)
    fall_silent()
    leave_if_stuck(status)
    return status


def leave_if_stuck(status: int) -> None:
    """End the process where a tracker's thread hangs, and (on Linux) the service that it waits for: the tracker's
    library would wait for it once more on the way out, and the service holds our output open."""
    if any(thread.name == "tracker" for thread in threading.enumerate()):
        for children in Path("/proc/self/task").glob("*/children"):
            for child in children.read_text().split():
                os.kill(int(child), signal.SIGKILL)
        os._exit(status)


def main() -> int:
    """The `gan` command."""

    if sys.argv[1:2] == ["where"]:  # its flags are those of train.py
        return guarded(print_run_folder)

    def run() -> None:
        from gan.evaluate import write_evaluation  # its import takes seconds, which train.py need not wait for

        acts: dict[str, Callable[..., None]] = {
            "sample": write_samples,
            "evaluate": write_evaluation,
            "pack": write_pack,
        }
        with plain_refusals():
            command = tyro.extras.subcommand_cli_from_dict(
                {name: postponed(act) for name, act in acts.items()},
                prog="gan",
                description="Around a run: pack its images, draw new ones, measure how good they are; gan where FLAGS… "
                "names the run folder of train.py FLAGS…. Training itself: accelerate launch train.py",
                config=(tyro.conf.FlagConversionOff,),
            )
        command()

    return guarded(run)


def print_run_folder() -> None:
    """The run folder of `gan where FLAGS…`, byte for byte."""
    sys.stdout.buffer.write(os.fsencode(f"{parse(sys.argv[2:]).out}\n"))


def postponed(act: Callable[..., None]) -> Callable[..., Callable[[], None]]:
    """`act`, with the same arguments, to be called once the words of the command line have been understood."""

    @functools.wraps(act)
    def bind(*positional: object, **named: object) -> Callable[[], None]:
        return functools.partial(act, *positional, **named)

    return bind
