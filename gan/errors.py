"""Faults a user can act on. They are printed as one sentence, without a traceback."""

import contextlib
import io
import os
import re
import sys
from collections.abc import Iterable, Iterator
from difflib import get_close_matches


class UserFault(Exception):
    """A sentence that says what is wrong and what to do about it."""

    exit_status = 1
    label = "error: "
    awaited = True
    """A process that leaves it to another to print the fault gives that one time before it ends."""
    told = False
    """It has been printed."""

    def __init__(self, text: str, agreed: bool = False):
        """`agreed`: the same fault is raised on every process, so the main one prints it."""
        super().__init__(text)
        self.agreed = agreed


class UsageError(UserFault):
    """The command cannot work as it was given: exit status 2."""

    exit_status = 2


class RunError(UserFault):
    """Something went wrong while the command ran: exit status 1."""


class ProcessError(RunError):
    """A fault of one process alone, which prints it itself."""


def tell(fault: UserFault) -> None:
    """Print the fault as one sentence, once."""
    if not fault.told:
        with contextlib.suppress(OSError):
            print(f"{fault.label}{' '.join(str(fault).split())}", file=sys.stderr, flush=True)
    fault.told = True


def speaks(fault: UserFault) -> bool:
    """Whether this process tells the fault: one for all where they have agreed on it, else one on each machine."""
    rank = os.environ.get("RANK" if fault.agreed else "LOCAL_RANK", "0")
    return rank == "0" or isinstance(fault, ProcessError)


def reason(error: Exception) -> str:
    """What is wrong, in a few words."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(text.split()) or type(error).__name__


def suggestion(word: str, known: Iterable[str]) -> str:
    """The end of a sentence: '; did you mean …?' when a known word is close to `word`, else a full stop."""
    nearest = get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"; did you mean {nearest[0]}?" if nearest else "."


@contextlib.contextmanager
def plain_refusals() -> Iterator[None]:
    """tyro's framed error messages inside become a UsageError of one sentence."""
    panel = io.StringIO()
    try:
        with contextlib.redirect_stderr(panel):
            yield
    except SystemExit as stop:
        if not stop.code:
            raise  # --help was asked for and has been printed
        raise UsageError(first_sentence(panel.getvalue())) from None


def first_sentence(panel: str) -> str:
    """The text of tyro's framed message down to its first rule, as one line."""
    lines = []
    for line in panel.splitlines()[1:]:
        text = line.strip("│ ╰╯")
        if text.strip("─-"):
            lines.append(text)
        elif lines:  # not the rule below the title, where the terminal knows no frames
            break
    text = " ".join(lines)
    if refused := re.match(r"invalid choice '(.*)' for argument '(.*)'\. Expected one of \((.*?),?\) ?\.", text):
        word, flag, listed = refused.groups()
        known = [name.strip(" '") for name in listed.split(",")]
        return f"{flag}: {word!r} is not one of {', '.join(known)}{suggestion(word, known)}"
    sentence = re.sub(r"invalid literal for int\(\) with base 10: (.*)", r"\1 is not a whole number", text)
    return re.sub(r"(?:could not convert.*: |no type matching.*\[)('.*')\]?\.?", r"\1 is not a number", sentence)
