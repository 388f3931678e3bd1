"""Kills a run again and again at random instants, and compares what it becomes with a run that was left alone.

    python -m tests.faults.kills [--kills 300] [--processes 2] [--seed 0]

Each attempt is `train.py`'s own function in forked processes (so that Python and torch are loaded once), which meet as
under torchrun. After a random time one of them, or all, get SIGKILL; then the same command starts again, until the run
is finished, and the next one begins. An attempt that was killed while a checkpoint was half written is one inside a
save.
"""

import json
import os
import random
import signal
import socket
import sys
import tempfile
import time
import traceback
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch._dynamo  # noqa: F401  # DDP imports it
import tyro
from PIL import Image

import gan.run  # noqa: F401  # train imports it
from gan import checkpoint
from gan.cli import train
from tests.conftest import TINY, log_of, without_clock

TOTAL, EVERY = 40, 2
WORDS = [
    *TINY,
    "--iterations",
    str(TOTAL),
    "--checkpoint.every",
    str(EVERY),
    "--log-every",
    "1",
    "--sample-every",
    "10",
    "--seed",
    "5",
]


@dataclass
class Score:
    """`repeated`: the most iterations that a restart did again."""

    kills: int = 0
    of_one_rank: int = 0
    inside_a_save: int = 0
    finished: int = 0
    different: int = 0
    repeated: int = 0


def start(run: Path, images: Path, processes: int) -> list[int]:
    """Fork the processes of a run; their ids, by rank."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children = []
    for rank in range(processes):
        if child := os.fork():
            children.append(child)
            continue
        try:
            os._exit(attempt(run, images, rank, processes, port))
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)
    return children


def attempt(run: Path, images: Path, rank: int, processes: int, port: int) -> int:
    """What train.py does, in this process; its exit status. What it says goes to a file beside the run."""
    words = os.open(run.with_suffix(".txt"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(words, 1)
    os.dup2(words, 2)
    if processes > 1:
        place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": processes,
                 "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}  # fmt: skip
        os.environ.update({name: str(value) for name, value in place.items()})
    return train([*WORDS, "--data", str(images), "--out", str(run)])


def wait(children: list[int], seconds: float) -> dict[int, int]:
    """Exit statuses of those that end within `seconds`."""
    ended: dict[int, int] = {}
    until = time.monotonic() + seconds
    while len(ended) < len(children) and time.monotonic() < until:
        for child in set(children) - ended.keys():
            found, status = os.waitpid(child, os.WNOHANG)
            if found:
                ended[child] = os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    return ended


def reap(children: list[int]) -> None:
    """Wait for what is left of a killed attempt; as a launcher does, end what does not end by itself."""
    ended = wait(children, 2)
    for child in set(children) - ended.keys():
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def logged(run: Path) -> int:
    """The last iteration in the log."""
    path = run / "log.jsonl"
    return path.read_text().count("\n") if path.exists() else 0


def newest(run: Path) -> int:
    found = checkpoint.load_newest(run / "checkpoints")
    return int(found.state["iteration"]) if found else 0


def content(run: Path) -> list[bytes | str]:
    """All that a finished run leaves and that no clock is in: tensors of the last checkpoint, pictures, log, status."""
    tensors = sorted((run / "checkpoints" / f"iteration-{TOTAL:08d}").glob("*.safetensors"))
    pictures = [*sorted((run / "samples").glob("*.png")), run / "walk.gif"]
    log = without_clock(log_of(run))
    return [*(path.read_bytes() for path in (*tensors, *pictures)), json.dumps(log), (run / "status.json").read_text()]


def torment(kills: int, processes: int, seed: int, scratch: Path) -> Score:
    images = scratch / "images"
    images.mkdir()
    for number in range(16):
        Image.fromarray(np.random.default_rng(number).integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(
            images / f"{number}.png"
        )
    began = time.monotonic()
    reference = start(scratch / "reference", images, processes)
    while not logged(scratch / "reference"):
        assert time.monotonic() - began < 60, "the run that is left alone does not start"
        time.sleep(0.002)
    starting = time.monotonic() - began
    assert set(wait(reference, 120).values()) == {0}, "the run that is left alone has failed"
    duration, expected = time.monotonic() - began - starting, content(scratch / "reference")
    assert len(expected) == 5 + 1 + 2 * (TOTAL // 10) + 1 + 2
    score, chance = Score(), random.Random(seed)
    while score.kills < kills or not score.finished:
        run = scratch / f"run {score.finished}"
        children = start(run, images, processes)
        training = chance.random() < 0.7  # else it is still starting
        ended = wait(
            children, chance.uniform(starting, starting + 0.6 * duration) if training else chance.uniform(0, starting)
        )
        if len(ended) == processes:
            said = run.with_suffix(".txt").read_text()[-2000:]
            assert set(ended.values()) == {0}, f"an attempt has failed by itself: {ended}\n{said}"
            score.finished += 1
            score.different += content(run) != expected
            continue
        one = processes > 1 and chance.random() < 0.5
        doomed = [chance.choice(children)] if one else children
        for child in doomed:
            if child not in ended:
                os.kill(child, signal.SIGKILL)
        reap([child for child in children if child not in ended])
        score.kills += 1
        score.of_one_rank += one
        score.inside_a_save += any((run / "checkpoints").glob(".unfinished-iteration-*"))
        score.repeated = max(score.repeated, logged(run) - newest(run))
    return score


def main(kills: int = 300, processes: int = 1, seed: int = 0) -> None:
    """Args:
    kills: How many, or as many more as it takes until a run is finished.
    processes: Of each run.
    seed: Of the instants.
    """
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["XDG_CACHE_HOME"] = f"{scratch}/cache"
        score = torment(kills, processes, seed, Path(scratch))
    print(f"seed {seed}, {processes} process(es): {score}; checkpoints every {EVERY} iterations of {TOTAL}")
    sys.exit(score.different > 0 or score.repeated > 2 * EVERY)


if __name__ == "__main__":
    tyro.cli(main)
