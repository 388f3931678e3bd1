"""Words to the user."""

import contextlib
import os
import sys
from collections.abc import Collection, Iterable, Sequence

from tqdm import tqdm


def say(text: str) -> None:
    """Print a line at once, above the progress bar if there is one. A full disk below the output, or a reader that is
    gone, is no reason to stop training: what cannot be said is not said."""
    with contextlib.suppress(OSError):
        tqdm.write(text)
        sys.stdout.flush()


def aligned(lines: Iterable[Sequence[str]], left: Collection[int] = (0,)) -> str:
    """Lines of cells as a table, whose columns at `left` are flush left and the others flush right."""
    columns = []
    for index, cells in enumerate(zip(*lines, strict=True)):
        width = max(map(len, cells))
        columns.append([cell.ljust(width) if index in left else cell.rjust(width) for cell in cells])
    return "\n".join("  ".join(line).rstrip() for line in zip(*columns, strict=True))


def fall_silent() -> None:
    """At the end: what could not be printed is given up, or Python would make it the exit status."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
