"""Packing costs hardly more than decoding and resizing alone: benchmarks/packing.py in small."""

import resource
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.packing import bare_rate, pack_rate, write


@pytest.mark.skipif(sys.platform != "linux", reason="packs with threads elsewhere, as the benchmark does not")
def test_the_processors_do_little_but_decode(tmp_path: Path) -> None:
    """In seconds of the processors, not of the clock, which other programs on the machine would stretch; the best of
    several rounds, since they slow the processors too. 0.72, though the benchmark has more: here a tenth goes into what
    every pack needs once, the forks and the picture. Hashing each image ten times makes it 0.6."""
    paths = write(tmp_path / "images", "PNG 64×64", 5000)
    ratios = []
    for _ in range(5):
        bare = processor_seconds(lambda: bare_rate(paths, 2))
        ratios.append(bare / processor_seconds(lambda: pack_rate(tmp_path / "images", tmp_path / "cache")))
    assert max(ratios) > 0.72, ratios


def processor_seconds(work: Callable[[], object]) -> float:
    """Of this process and of those that it started and that have ended."""

    def used() -> float:
        return sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))

    before = used()
    work()
    return used() - before
