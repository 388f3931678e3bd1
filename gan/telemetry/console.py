"""Words to the user."""

import contextlib
import os
import sys

from tqdm import tqdm


def say(text: str) -> None:
    """Print a line at once, above the progress bar if there is one. A full disk below the output, or a reader that is
    gone, is no reason to stop training: what cannot be said is not said."""
    with contextlib.suppress(OSError):
        tqdm.write(text)
        sys.stdout.flush()


def fall_silent() -> None:
    """At the end: what could not be printed is given up, or Python would make it the exit status."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
