"""Words to the user."""

import sys

from tqdm import tqdm


def say(text: str) -> None:
    """Print a line at once, above the progress bar if there is one."""
    tqdm.write(text)
    sys.stdout.flush()
