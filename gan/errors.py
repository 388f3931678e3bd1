"""Faults a user can act on. They are printed as one sentence, without a traceback."""

from collections.abc import Iterable
from difflib import get_close_matches


class UserFault(Exception):
    """A sentence that says what is wrong and what to do about it."""

    exit_status = 1
    label = "error: "
    agreed = False
    """The same fault has been raised on every process, so the main one prints it."""


class UsageError(UserFault):
    """The command cannot work as it was given: exit status 2."""

    exit_status = 2


class RunError(UserFault):
    """Something went wrong while the command ran: exit status 1."""


class ProcessError(RunError):
    """A fault of one process alone, which prints it itself."""


def suggestion(word: str, known: Iterable[str]) -> str:
    """The end of a sentence: '; did you mean …?' when a known word is close to `word`, else a full stop."""
    nearest = get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f"; did you mean {nearest[0]}?" if nearest else "."
