"""Locks that the operating system drops when their holder dies. Several jobs may start on the same images at once: one
does what must be done once, the others wait."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import filelock

from gan.telemetry.console import say

NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)
"""What the system says of a disk that knows no locks: NFS without its lock service, Lustre mounted without flock."""


def lock_at(path: Path) -> filelock.BaseFileLock:
    """The lock in the file `path`, not yet taken. Never one of filelock's marker files, which stay for ever when their
    owner dies on another machine; where a disk knows no locks, taking it raises an OSError of NO_LOCKS."""
    return filelock.FileLock(path, fallback_to_soft=False)


@contextmanager
def waiting_lock(path: Path, act: str) -> Iterator[bool]:
    """Hold the lock at `path`; when another process holds it, say that it is `act`-ing, and wait.

    Between machines it holds where the shared disk passes locks on (NFS from version 4, Lustre with flock). On a disk
    that knows no locks, both do the same work: what this yields says whether the lock is held.
    """
    lock = lock_at(path)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        if os.environ.get("LOCAL_RANK", "0") == "0":
            say(f"Another process is {act}; waiting for it.")
        lock.acquire()
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
    try:
        yield lock.is_locked
    finally:
        lock.release()
