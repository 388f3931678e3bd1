"""A table of runs, from the files in their folders."""

import contextlib
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tyro

from gan.errors import UsageError
from gan.files import read_json
from gan.listing import best
from gan.run_folder import held
from gan.telemetry.console import aligned, say

DEPTH = 3
"""Folders below the given one that are looked into."""
TAIL_BYTES = 65_536
"""The end of a log, where its newest values are."""
SILENT_S = 600
"""A run that has written nothing for so long, and that no process holds, has been killed."""
HEADINGS = ("run", "state", "iteration", "kimg", "loss D", "loss G", "verdict", "best", "images/s", "updated")
TO_THE_LEFT = ("run", "state", "verdict", "best")


def print_runs(folder: tyro.conf.Positional[Path] = Path("runs")) -> None:
    """List runs and how they stand, the one updated last at the end.

    Args:
        folder: Where the run folders are, up to three folders deep.
    """
    if not folder.is_dir():
        raise UsageError(f"there is no folder {folder}; name the one with your run folders: gan runs FOLDER.")
    runs = sorted(runs_below(folder, DEPTH), key=updated)
    if not runs:
        raise UsageError(f"{folder} has no run folders in it.")
    say(table([row(run, folder) for run in runs]))


def runs_below(folder: Path, depth: int) -> Iterator[Path]:
    """Run folders in `folder`, or itself. Former runs, set aside in a run folder, are not looked for."""
    if (folder / "config.yaml").is_file() and (folder / "status.json").is_file():
        yield folder
    elif depth:
        with contextlib.suppress(OSError):
            for path in sorted(folder.iterdir()):
                if path.is_dir() and not path.is_symlink():
                    yield from runs_below(path, depth - 1)


def updated(run: Path) -> float:
    """When a run last wrote its log or its status, in seconds since 1970."""
    times = [0.0]
    for name in ("log.jsonl", "status.json"):
        with contextlib.suppress(OSError):
            times.append((run / name).stat().st_mtime)
    return max(times)


def row(run: Path, folder: Path) -> dict[str, str]:
    """A line of the table: heading → text."""
    status, last = read_json(run / "status.json"), newest_values(run / "log.jsonl")
    status = status if isinstance(status, dict) else {}
    path, score = best(run / "checkpoints")
    done, total = status.get("iteration", last.get("iteration")), status.get("total")
    return {
        "run": run.resolve().name if run == folder else str(run.relative_to(folder)),
        "state": state_of(run, status),
        "iteration": f"{shown(done)}/{total}" if isinstance(total, int) else shown(done),
        "kimg": shown(last.get("images"), 0.001),
        "loss D": shown(last.get("loss/d")),
        "loss G": shown(last.get("loss/g")),
        "verdict": str(last.get("verdict") or ""),
        "best": f"{score['metric']} {shown(score['value'])}" if path else "",
        "images/s": shown(last.get("perf/images_per_second")),
        "updated": ago(time.time() - updated(run)),
    }


def state_of(run: Path, status: dict[str, Any]) -> str:
    """What status.json says; `killed` where it says running and nobody runs."""
    state = str(status.get("state", "unknown"))
    return "killed" if state == "running" and time.time() - updated(run) > SILENT_S and not held(run) else state


def newest_values(log: Path) -> dict[str, Any]:
    """The newest value of each name in the last lines of a log, of which only the end is read."""
    values: dict[str, Any] = {}
    with contextlib.suppress(OSError), open(log, "rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL_BYTES))
        for line in file.read().decode(errors="replace").splitlines():
            with contextlib.suppress(ValueError, RecursionError):
                entry = json.loads(line)
                values.update(entry if isinstance(entry, dict) and "iteration" in entry else {})
    return values


def shown(value: Any, factor: float = 1) -> str:
    """A number in few digits; what is none, as a dash."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return "–"
    number = value * factor
    whole = (isinstance(value, int) and factor == 1) or 1000 <= abs(number) < 1e6
    return f"{number:.0f}" if whole else f"{number:.3g}"


def ago(seconds: float) -> str:
    """A time that has passed, in the largest unit of which there is at least one."""
    for name, length in (("days", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            count = int(seconds // length)
            return f"{count} {'day' if name == 'days' and count == 1 else name} ago"
    return "just now"


def table(rows: list[dict[str, str]]) -> str:
    """Aligned columns; those that are empty in every row are left out."""
    names = [name for name in HEADINGS if any(row[name] for row in rows)]
    lines = [names, *([" ".join(row[name].split()) for name in names] for row in rows)]
    return aligned(lines, left=[index for index, name in enumerate(names) if name in TO_THE_LEFT])
