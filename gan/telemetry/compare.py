"""Several runs in one picture."""

import os
from collections import Counter
from pathlib import Path

import tyro

from gan.errors import UsageError, reason, suggestion
from gan.files import replace_file
from gan.telemetry.console import say
from gan.telemetry.history import History, read_history
from gan.telemetry.plots import comparison_plot

USUAL = ("loss/d", "loss/g", "health/diversity")


def write_comparison(
    runs: tyro.conf.Positional[tuple[Path, ...]], out: Path = Path("comparison.png"), values: tuple[str, ...] = ()
) -> None:
    """Draw the curves of several runs in one picture, a colour for each run.

    Args:
        runs: Run folders.
        out: Where the picture goes (PNG).
        values: What to draw, by its names in log.jsonl; by default the losses, the diversity of the samples, and what
            was evaluated in all of the runs.
    """
    if not runs:
        raise UsageError("give the run folders: gan plot RUN RUN --out comparison.png.")
    if not out.name or os.path.isdir(out):
        raise UsageError(f"--out {out} is a folder; name a picture in it: {out / 'comparison.png'}.")
    paths = list(dict.fromkeys(run.resolve() for run in runs))
    histories = {path: read_history(path) for path in paths}
    picture = comparison_plot(dict(zip(labels(paths), histories.values(), strict=True)),
                              chosen(list(values), list(histories.values())))  # fmt: skip
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        replace_file(out, picture)
    except OSError as error:
        raise UsageError(f"cannot write {out}: {reason(error)}. Choose another place with --out.") from None
    say(f"{len(paths)} runs in {out}")


def chosen(wanted: list[str], histories: list[History]) -> list[str]:
    """The names of the values to draw. Raises UsageError for one that no run has logged."""
    logged = [set(history.curves) for history in histories]
    known = set.union(*logged) - {"iteration", "images", "epoch"}
    for name in wanted:
        if name not in known:
            raise UsageError(f"--values {name} is in none of the logs{suggestion(name, known)}")
    shared = sorted(name for name in set.intersection(*logged) if name.startswith("eval/"))
    names = list(dict.fromkeys(wanted)) or [name for name in [*USUAL, *shared] if name in known]
    if not names:
        raise UsageError(f"none of {', '.join(USUAL)} is in the logs; choose with --values from {', '.join(known)}.")
    return names


def labels(paths: list[Path]) -> list[str]:
    """For each path as many of its last parts as tell it from the others."""
    lengths = [1] * len(paths)
    tails = [os.fspath(path.name) for path in paths]
    while any(count > 1 for count in Counter(tails).values()):
        twice = {tail for tail, count in Counter(tails).items() if count > 1}
        lengths = [length + (tail in twice) for length, tail in zip(lengths, tails, strict=True)]
        tails = ["/".join(path.parts[-length:]) for path, length in zip(paths, lengths, strict=True)]
    return tails
