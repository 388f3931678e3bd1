"""The checkpoints of a run, by name and by score. None is read beyond its state.json, and torch is not imported."""

import contextlib
import json
import math
import re
from pathlib import Path
from typing import Any


def best(folder: Path) -> tuple[Path | None, dict[str, Any]]:
    """The best of the checkpoints with a "score" {"metric", "value", "better": "lower" | "higher"} in their state, and
    that score; of equals the newest. (None, {}) where none has one. Scores of another metric than the newest one's do
    not count."""
    scored: list[tuple[Path, dict[str, Any]]] = []
    for path in listed(folder):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            score = json.loads((path / "state.json").read_text())["score"]
            if math.isfinite(score["value"]) and score["metric"] == (scored[0][1] if scored else score)["metric"]:
                scored.append((path, score))
    sign = -1 if scored and scored[0][1]["better"] == "higher" else 1
    return min(scored, key=lambda one: sign * one[1]["value"], default=(None, {}))


def listed(folder: Path) -> list[Path]:
    """Finished checkpoints, newest first. A copy under another name is none."""
    names = [path for path in folder.glob("iteration-*") if re.fullmatch(r"iteration-\d{8,}", path.name)]
    return sorted(names, key=iteration_of, reverse=True)


def iteration_of(path: Path) -> int:
    return int(path.name.removeprefix("iteration-"))
