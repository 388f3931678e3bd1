"""Small files, each written whole or not at all, and read whatever has happened to them."""

import contextlib
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gan.errors import reason
from gan.telemetry.console import say


def replace_file(path: Path, content: bytes | None) -> None:
    """Put a file in place in one step, so that a reader never sees half of it; under a name of this thread's own until
    then, as two reports may be made at once. None removes it. Raises OSError."""
    if content is None:
        path.unlink(missing_ok=True)
        return
    unfinished = path.with_name(f".{threading.get_native_id()}-{path.name}")
    try:
        unfinished.write_bytes(content)
        unfinished.replace(path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise


def attempt(write: Callable[[], None], what: str) -> None:
    """Write something that training can do without. When the disk refuses, say so."""
    try:
        write()
    except OSError as error:
        say(f"Warning: {what} could not be written ({reason(error)}); training goes on.")


def read_json(path: Path) -> Any:
    """What a JSON file holds; an empty dictionary where it is missing or damaged."""
    with contextlib.suppress(OSError, ValueError, RecursionError):
        return json.loads(path.read_text("utf-8"))
    return {}
