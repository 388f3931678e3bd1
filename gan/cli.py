"""The commands: train.py, and `gan` with its subcommands. Each imports what it needs: torch alone takes seconds."""

import atexit
import contextlib
import functools
import gc
import importlib
import io
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import tyro

from gan.errors import UsageError, UserFault, plain_refusals, speaks, suggestion, tell
from gan.listing import recipe_in, table_of_recipes
from gan.telemetry.console import fall_silent, say

COMMANDS = {
    "runs": ("gan.telemetry.runs", "print_runs"),
    "report": ("gan.telemetry.report", "write_report"),
    "plot": ("gan.telemetry.compare", "write_comparison"),
    "sample": ("gan.sample", "write_samples"),
    "evaluate": ("gan.evaluate", "write_evaluation"),
    "export": ("gan.export", "write_exported"),
    "pack": ("gan.data.pack", "write_pack"),
    "doctor": ("gan.doctor", "print_diagnosis"),
}
"""The commands of `gan`: name → module and function."""

atexit.register(gc.freeze)  # or Python would end by looking through all of torch's objects for rubbish: a second

PATIENCE = 10.0
"""Seconds that a process with a fault to tell, which another is to print, leaves that one before it ends."""

ABOUT = (
    "Around a run: list runs, draw their curves, pack images, draw new ones, measure",
    "how good they are, hand the generator on, look at the machine.",
    "Training itself: accelerate launch train.py FLAGS…",
    "The run folder of those flags: gan where FLAGS…",
)


def guarded(command: Callable[[], None]) -> int:
    """Run a command; a fault the user can act on becomes one sentence and an exit status."""
    for stream in (sys.stdout, sys.stderr):  # a file name that the terminal cannot show is no reason to fail
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        command()
    except UserFault as fault:
        if speaks(fault) or not another_speaks(fault):
            tell(fault)
        return fault.exit_status
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr, flush=True)
        return 130
    return 0


def another_speaks(fault: UserFault) -> bool:
    """Whether the fault, which is not for this process to print, is printed by another. Gives that one time: the
    launcher ends all its processes when the first of them has failed, this one too then. Who waits in vain has met the
    fault alone."""
    if fault.agreed and (not fault.awaited or os.environ.get("GROUP_RANK", "0") != "0"):
        return True  # a launcher knows nothing of other machines
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    with contextlib.suppress(KeyboardInterrupt):
        time.sleep(PATIENCE)
    return fault.agreed


def train(arguments: list[str]) -> int:
    """What train.py does: flags → Config → a run, or a look at what it would be. Returns the exit status."""

    def run() -> None:
        if recipe_in(arguments) == "list":
            return print_recipes()
        from gan.config import parse

        config = parse(arguments)
        if config.dry_run:
            from gan.plan import print_plan as act
        else:
            from gan.run import train as act  # after the flags are known to be right: this import takes seconds
        return act(config)

    status = guarded(run)
    fall_silent()
    leave_if_stuck(status)
    return status


def print_recipes() -> None:
    """What `--recipe list` asks for, once for all processes."""
    if os.environ.get("RANK", "0") == "0":
        say(table_of_recipes())


def leave_if_stuck(status: int) -> None:
    """End the process where a tracker's thread hangs, and (on Linux) the service that it waits for: the tracker's
    library would wait for it once more on the way out, and the service holds our output open."""
    if any(thread.name == "tracker" for thread in threading.enumerate()):
        for children in Path("/proc/self/task").glob("*/children"):
            for child in children.read_text().split():
                os.kill(int(child), signal.SIGKILL)
        os._exit(status)


def main(arguments: Sequence[str] | None = None) -> int:
    """The `gan` command, with these words after it; by default those of the command line."""
    words = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    if words[:1] == ["where"]:  # its flags are those of train.py
        return guarded(lambda: print_run_folder(words[1:]))
    return guarded(lambda: understood(words)())


def understood(words: list[str]) -> Callable[[], None]:
    """What the words ask for, ready to be called. Only the command that they name is imported. Raises UsageError."""
    if words and words[0] not in COMMANDS and not words[0].startswith("-"):
        raise UsageError(f"there is no gan {words[0]}{suggestion(words[0], [*COMMANDS, 'where'])} See gan --help.")
    names = words[:1] if words and words[0] in COMMANDS else list(COMMANDS)
    acts: dict[str, Callable[..., None]] = {
        name: getattr(importlib.import_module(COMMANDS[name][0]), COMMANDS[name][1]) for name in names
    }
    with plain_refusals():
        return tyro.extras.subcommand_cli_from_dict(
            {name: postponed(act) for name, act in acts.items()},
            prog="gan",
            description="\n\n".join(ABOUT),
            args=words,
            config=(tyro.conf.FlagConversionOff,),
        )


def print_run_folder(flags: list[str]) -> None:
    """The run folder of `gan where FLAGS…`, byte for byte."""
    from gan.config import parse

    sys.stdout.buffer.write(os.fsencode(f"{parse(flags).out}\n"))


def postponed(act: Callable[..., None]) -> Callable[..., Callable[[], None]]:
    """`act`, with the same arguments, to be called once the words of the command line have been understood."""

    @functools.wraps(act)
    def bind(*positional: object, **named: object) -> Callable[[], None]:
        return functools.partial(act, *positional, **named)

    return bind
