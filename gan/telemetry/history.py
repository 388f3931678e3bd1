"""What a run has logged, as curves over the real images shown (kimg), and how its health was judged."""

import contextlib
import json
from array import array
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from gan.errors import UsageError
from gan.run_folder import lines_of

POINTS = 1500
"""A drawn curve has no more points than this, or so."""
FEW = 30
"""A curve of fewer points is not smoothed."""
LARGEST = 1e39
"""Larger values, which float32 does not have, are drawn as this."""


@dataclass(frozen=True)
class Curve:
    """Values by kimg; not a number where the log says null."""

    kimg: np.ndarray
    values: np.ndarray


@dataclass
class Span:
    """A verdict and where it held: from the entry before its first one to its last."""

    verdict: str
    begin_kimg: float
    begin: int
    end_kimg: float
    end: int


@dataclass
class History:
    """`last` has the newest value of everything that was ever logged, whatever it is."""

    curves: dict[str, Curve] = field(default_factory=dict)
    spans: list[Span] = field(default_factory=list)
    last: dict[str, Any] = field(default_factory=dict)

    @property
    def kimg(self) -> float:
        """Where the log ends."""
        return float(self.last["images"]) / 1000


def read_history(run: Path) -> History:
    """All of a run's log; an entry that does not say where it belongs is left out. Raises UsageError where nothing is
    logged."""
    history, now = History(), (0.0, 0)
    places: dict[str, array[float]] = defaultdict(lambda: array("d"))
    values: dict[str, array[float]] = defaultdict(lambda: array("d"))
    for entry in entries_of(run / "log.jsonl"):
        kimg = entry["images"] / 1000
        for name, value in entry.items():
            if value is None or type(value) in (int, float):
                with contextlib.suppress(OverflowError):  # an integer of hundreds of digits
                    values[name].append(float("nan") if value is None else value)
                    places[name].append(kimg)
        history.last.update(entry)
        before, now = now, (kimg, int(entry["iteration"]))
        judge(history.spans, entry.get("verdict"), before, now)
    if not history.last and not (run / "config.yaml").exists():
        raise UsageError(f"{run} is not a run folder.")
    if not history.last:
        raise UsageError(f"{run} has nothing in its log yet; come back after the first --log-every iterations.")
    for name, column in values.items():
        finite = np.frombuffer(column).clip(-LARGEST, LARGEST)
        history.curves[name] = Curve(np.frombuffer(places[name]), finite)
    return history


def entries_of(log: Path) -> Iterator[dict[str, Any]]:
    """The entries of a log that have a place on the x-axis. None where there is no log."""
    if log.is_file():
        for line, _ in lines_of(log):
            entry = json.loads(line)
            if type(entry.get("images")) in (int, float) and 0 <= entry["images"] < LARGEST:
                yield entry


def judge(spans: list[Span], verdict: Any, before: tuple[float, int], now: tuple[float, int]) -> None:
    """Take one more entry, and what it says of the way since the one before, into the history of verdicts; one that
    says nothing is taken for agreement. A place is (kimg, iteration)."""
    if isinstance(verdict, str) and (not spans or spans[-1].verdict != verdict):
        spans.append(Span(verdict, *before, *now))
    elif spans:
        spans[-1].end_kimg, spans[-1].end = now


def thinned(curve: Curve) -> Curve:
    """Fewer points, with the least and the largest of each stretch among them, so that no peak is lost."""
    count = len(curve.values)
    if count <= POINTS:
        return curve
    rows = {0, count - 1}
    for part in np.array_split(np.arange(count), POINTS // 2):
        known = part[np.isfinite(curve.values[part])]
        lowest_highest = (curve.values[known].argmin(), curve.values[known].argmax()) if len(known) else ()
        rows.update(known[list(lowest_highest)].tolist() or part[:1].tolist())
    chosen = sorted(rows)
    return Curve(curve.kimg[chosen], curve.values[chosen])


def smoothed(curve: Curve, forward: Callable[..., Any], inverse: Callable[..., Any]) -> Curve:
    """Means over about a twentieth of the curve, weighted to the middle, taken of forward(values)."""
    parts = np.array_split(np.arange(len(curve.values)), min(len(curve.values), POINTS // 3))
    levels = forward(curve.values)
    known = np.isfinite(levels)
    kernel = np.hanning(max(5, len(parts) // 20 | 1) + 2)[1:-1]
    starts = [part[0] for part in parts]
    sums = np.convolve(np.add.reduceat(np.where(known, levels, 0), starts), kernel, "same")
    counts = np.convolve(np.add.reduceat(known.astype(float), starts), kernel, "same")
    kimg = np.array([curve.kimg[part].mean() for part in parts])
    means = np.divide(sums, counts, out=np.full(len(parts), np.nan), where=counts > 0)
    return Curve(kimg, inverse(means))
