"""What there is to choose from: recipes, and the checkpoints of a run by name and by score. Torch, whose import takes
seconds, is not imported."""

import argparse
import contextlib
import json
import math
import os
import re
from pathlib import Path
from typing import Any

RECIPES = Path(__file__).parent / "recipes"


def recipe_in(arguments: list[str]) -> str | None:
    """What --recipe says in a command line, if it is there."""
    finder = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    finder.add_argument("--recipe", nargs="?")
    return finder.parse_known_args(arguments)[0].recipe


def table_of_recipes() -> str:
    """A line for each built-in recipe: its name, and what the first line of its file says it is."""
    titles = {path.stem: path.read_text("utf-8").partition("\n")[0].strip("# ") for path in RECIPES.glob("*.yaml")}
    return "\n".join(f"{name:{max(map(len, titles))}}  {titles[name]}" for name in sorted(titles))


def best(folder: Path) -> tuple[Path | None, dict[str, Any]]:
    """The best of the checkpoints with a "score" {"metric", "value", "better": "lower" | "higher"} in their state, and
    that score; of equals the newest. (None, {}) where none has one. Scores that were not measured as the newest one
    was do not count: by another metric, with another number of images, against others."""
    scored: list[tuple[Path, dict[str, Any]]] = []
    for path in listed(folder):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            score = json.loads((path / "state.json").read_text())["score"]
            if math.isfinite(score["value"]) and protocol(score) == protocol(scored[0][1] if scored else score):
                scored.append((path, score))
    sign = -1 if scored and scored[0][1]["better"] == "higher" else 1
    return min(scored, key=lambda one: sign * one[1]["value"], default=(None, {}))


def protocol(score: dict[str, Any]) -> tuple[Any, ...]:
    """How it was measured; scores of different ones cannot be compared. Raises KeyError."""
    return score["metric"], score.get("count"), score.get("images")


def listed(folder: Path) -> list[Path]:
    """Finished checkpoints, newest first; none where there is no folder. A copy under another name is none. Raises
    OSError."""
    try:
        names = os.listdir(folder)  # Path.glob() takes a folder that cannot be read for an empty one, from Python 3.13
    except (FileNotFoundError, NotADirectoryError):
        return []
    paths = [folder / name for name in names if re.fullmatch(r"iteration-\d{8,}", name)]
    return sorted(paths, key=iteration_of, reverse=True)


def iteration_of(path: Path) -> int:
    """The number in a checkpoint's name."""
    return int(path.name.removeprefix("iteration-"))
