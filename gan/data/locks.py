"""Several jobs may start on the same images at once: one does what must be done once, the others wait."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import filelock

from gan.telemetry.console import say


@contextmanager
def waiting_lock(path: Path, act: str) -> Iterator[None]:
    """Hold the lock at `path`; when another process holds it, say that it is `act`-ing, and wait.

    The operating system drops the lock when its holder dies. Between machines it holds where the shared disk passes
    locks on (NFS from version 4, Lustre with flock); where it does not, both do the same work, and the later rename
    wins.
    """
    lock = filelock.FileLock(path)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        if os.environ.get("LOCAL_RANK", "0") == "0":
            say(f"Another process is {act}; waiting for it.")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
