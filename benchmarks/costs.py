"""What a run costs besides its steps, and what an iteration costs by size: python -m benchmarks.costs [NAME …]

start         seconds from the command to the second iteration, part by part
size          an iteration against resolution, width, batch and number of images
loader        images/s of the batches alone, against a folder that is decoded on the way, and against the step
checkpoints   seconds that training waits for one, written meanwhile or waited for
processes     images/s of one process with all cores, and of two that share them (accelerate launch)
"""

import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch

from benchmarks import textbook
from benchmarks.speed import images_of, waited
from gan.config import Config, parse
from gan.data.batches import Batches
from gan.data.pack import open_pack
from gan.processes import start_processes
from gan.run_folder import RunFolder
from gan.trainer import Trainer

ROOT = Path(__file__).parents[1]
GPU = torch.cuda.is_available()
BASE = ["--data", "sprites", "--resolution", "64", "--model.width", "64", "--batch-size", "64",
        "--iterations", "100000", "--track.with", "none"]  # fmt: skip
START = """
import time; began = time.perf_counter(); marks = {}
def mark(name):
    global began
    now = time.perf_counter(); marks[name] = now - began; began = now
import gan.trainer; mark("import")
from gan.config import parse
config = parse(FLAGS); mark("settings")
from gan.processes import start_processes; accelerator = start_processes(config); mark("accelerate")
from gan.data.pack import open_pack; pack = open_pack(config); mark("pack that is there")
from gan.run_folder import RunFolder; from pathlib import Path
folder = RunFolder(Path(str(config.out))); folder.create()
trainer = gan.trainer.Trainer(config, accelerator, folder, pack); mark("networks")
import torch
for iteration, name in enumerate(("first iteration", "second iteration")):
    trainer.iterate(iteration)
    if torch.cuda.is_available(): torch.cuda.synchronize()
    mark(name)
import json; print(json.dumps(marks))
"""


def table(head: Iterable[str], rows: Iterable[Iterable[object]]) -> None:
    head = list(head)
    print("\n| " + " | ".join(head) + " |\n" + "|---" * len(head) + "|")
    for row in rows:
        print("| " + " | ".join(f"{value:.3g}" if isinstance(value, float) else str(value) for value in row) + " |")


def spread(values: list[float]) -> tuple[float, float, float]:
    return statistics.median(values), min(values), max(values)


def build(config: Config, scratch: str) -> Trainer:
    folder = RunFolder(Path(tempfile.mkdtemp(dir=scratch)) / "run")
    folder.create()
    return Trainer(config, start_processes(config), folder, open_pack(config))


def iteration_ms(trainer: Trainer, count: int = 5) -> float:
    """Median, after two to warm up."""
    times = [waited(trainer.device)]
    for iteration in range(2 + count):
        trainer.iterate(iteration)
        times.append(waited(trainer.device))
    return 1000 * statistics.median(after - before for before, after in list(itertools.pairwise(times))[2:])


def start(scratch: str) -> None:
    words = [*BASE, "--out", f"{scratch}/start"]
    code = START.replace("FLAGS", repr(words))
    found = []
    for _ in range(4):
        result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
        found.append(json.loads(result.stdout.splitlines()[-1]))
    times = {name: [one[name] for one in found[1:]] for name in found[0]}  # the first may find a cold disk
    rows = [[name, *spread(values)] for name, values in times.items()]
    table(("part of the start", "seconds (median of 3)", "least", "most"), rows)


def size(scratch: str) -> None:
    large = [256, 512] if GPU else [256]
    changes: list[tuple[str, list[int]]] = [
        ("--resolution", [16, 32, 64, 128]),
        ("--model.width", [16, 32, 64, 128]),
        ("--batch-size", [16, 32, 64, 128, *large]),
    ]
    rows = []
    for flag, values in changes:
        for value in values:
            config = parse([*BASE, flag, str(value), "--out", f"{scratch}/size"])
            milliseconds = iteration_ms(build(config, scratch))
            rows.append([f"{flag} {value}", milliseconds, 1000 * config.batch_size / milliseconds])
    table(("width 64, 64 px, batch 64, but", "ms an iteration", "images/s"), rows)
    config, rows = parse([*BASE, "--out", f"{scratch}/images"]), []
    trainer, pixels = build(config, scratch), open_pack(config).images
    for count in (1_000, 10_000, 100_000):
        path = Path(scratch) / f"{count}.npy"
        repeats = -(-count // len(pixels))
        many = np.lib.format.open_memmap(path, "w+", np.uint8, (count, *pixels.shape[1:]))
        for part in range(repeats):
            piece = many[part * len(pixels) : (part + 1) * len(pixels)]
            piece[:] = pixels[: len(piece)]
        trainer.batches = Batches(many, 64, 0, 0, 1, trainer.device, torch.float32, prefetch=True)
        rows.append([f"{count:,}", iteration_ms(trainer)])
    table(("images in the set", "ms an iteration"), rows)


def rate(fetch: Callable[[int], object], batch: int, seconds: float = 3) -> float:
    """images/s of fetching one batch after the other."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    began, count = waited(device), 0
    while time.perf_counter() - began < seconds:
        fetch(count)
        count += 1
    return count * batch / (waited(device) - began)


def loader(scratch: str) -> None:
    folder = images_of(Path(scratch), 64)
    config = parse([*BASE, "--data", str(folder), "--out", f"{scratch}/loader"])
    trainer, decoded = build(config, scratch), textbook.batches(folder, 64, 64)
    next(decoded)  # its workers have started
    step = 64_000 / iteration_ms(trainer)
    alone = rate(lambda number: trainer.batches.at(64 * number), 64)
    rows = [["the step, which consumes", step, 1.0], ["batches of the pack", alone, alone / step]]
    rows.append(["ImageFolder and DataLoader, 2 workers", found := rate(lambda _: next(decoded), 64), found / step])
    table(("64 px, width 64, batch 64", "images/s", "times the step"), rows)


def checkpoints(scratch: str) -> None:
    rows = []
    for width in (64, 128):
        for overlap in (True, False):
            words = [
                *BASE,
                "--model.width",
                str(width),
                "--checkpoint.overlap",
                str(overlap),
                "--out",
                f"{scratch}/run",
            ]
            trainer = build(parse(words), scratch)
            trainer.iterate(0)
            waits = []
            for number in range(1, 5):
                trainer.fit_average()  # a forward pass or sixteen, on the device
                began = waited(trainer.device)
                trainer.iteration = number
                trainer.fitted = number
                trainer.save()
                waits.append(time.perf_counter() - began)
                trainer.saver.settle()
            size_mib = sum(file.stat().st_size for file in trainer.folder.checkpoints.glob("*4/*")) / 2**20
            how = "written meanwhile" if overlap else "waited for"
            rows.append([width, size_mib, how, *spread(waits[1:])])
            trainer.saver.close()
    table(("width", "MiB", "how", "seconds that training waits (median of 3)", "least", "most"), rows)


def processes(scratch: str) -> None:
    words = [*BASE, "--iterations", "12", "--log-every", "4", "--sample-every", "1000"]
    rates: dict[str, list[float]] = {"cpu": [], "cpu_2": []}
    for turn in range(3):
        for name, found in rates.items():
            out = f"{scratch}/{name}-{turn}"
            command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file",
                       f"accelerate_configs/{name}.yaml", "train.py", *words, "--out", out]  # fmt: skip
            subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
            lines = [json.loads(line) for line in Path(out, "log.jsonl").read_text().splitlines()]
            found.append(lines[-1]["perf/images_per_second"])
    rows = [
        [number, statistics.median(found), min(found), max(found)] for number, found in enumerate(rates.values(), 1)
    ]
    table(("processes on the same cores", "images/s (median of 3)", "least", "most"), rows)


COSTS = {"start": start, "size": size, "loader": loader, "checkpoints": checkpoints, "processes": processes}


def main() -> None:
    names = sys.argv[1:] or [name for name in COSTS if not GPU or name != "processes"]
    if unknown := set(names) - COSTS.keys():
        sys.exit(f"{', '.join(unknown)}: choose from {', '.join(COSTS)}.\n{__doc__}")
    device = torch.cuda.get_device_name() if GPU else f"{torch.get_num_threads()} cores"
    print(f"On {device}, torch {torch.__version__}")
    for name in names:
        with tempfile.TemporaryDirectory() as scratch:
            COSTS[name](scratch)


if __name__ == "__main__":
    main()
