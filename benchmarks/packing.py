"""How fast images are packed, against a bare loop that opens, decodes and resizes them and does nothing else.

    python -m benchmarks.packing [--images 100000] [--rounds 3]

Both run on every core, one after the other in each round. The bare loop knows where every image is and which mode it
has; the packer finds them, checks them, hashes them, counts duplicates and writes them. Rates are of the whole command
but for Python's start. Then: how long the bytes of the largest pack take to be written and nothing else, twice (the
first time costs ten times as much on a virtual machine that has lent its free memory away); the rate at which a pack
feeds training; and (on Linux) the memory that packing takes, for a fifth of the images and for all.
"""

import multiprocessing
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import tyro
from PIL import Image

from gan.config import Config, DataOptions
from gan.data.batches import Batches
from gan.data.pack import Pack, open_pack
from gan.data.packing import available_cores

SIDE = 64


ALONE = """
import os, sys; from pathlib import Path; from gan.config import Config, DataOptions
from gan.data.pack import open_pack
from gan.data.packing import Decoder
def at_its_highest():
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
def watched(decoder, numbers, decode=Decoder.__call__):
    census = decode(decoder, numbers)
    Path(sys.argv[2], f"peak-{os.getpid()}").write_text(str(at_its_highest()))
    return census
Decoder.__call__ = watched
Path("/proc/self/clear_refs").write_text("5")  # forget the highest so far
before = at_its_highest()
Path(sys.argv[2]).mkdir(exist_ok=True)
open_pack(Config(data=sys.argv[1], data_options=DataOptions(cache=Path(sys.argv[2]), workers=2)))
print(at_its_highest() - before, max(int(peak.read_text()) for peak in Path(sys.argv[2]).glob("peak-*")))
"""


def small_png(rng: np.random.Generator) -> Image.Image:
    return Image.fromarray(rng.integers(0, 256, (12, 12, 3), dtype=np.uint8)).resize((64, 64))


def drawing(rng: np.random.Generator) -> Image.Image:
    return Image.fromarray(rng.integers(0, 256, (12, 12, 4), dtype=np.uint8)).resize((128, 128))


def photo(rng: np.random.Generator) -> Image.Image:
    return Image.fromarray(rng.integers(0, 256, (30, 40, 3), dtype=np.uint8)).resize((640, 480))


KINDS: dict[str, tuple[Callable[[np.random.Generator], Image.Image], str, int]] = {
    "PNG 64×64": (small_png, "png", 1),
    "PNG 128×128 with alpha": (drawing, "png", 20),
    "JPEG 640×480": (photo, "jpg", 50),
}
"""Kind → (draws one, suffix, how many times fewer of them)."""


def write(folder: Path, kind: str, count: int) -> list[Path]:
    draw, suffix, _ = KINDS[kind]
    folder.mkdir()
    rng = np.random.default_rng(0)
    paths = [folder / f"{number:06d}.{suffix}" for number in range(count)]
    for path in paths:
        draw(rng).save(path, quality=90)
    return paths


def bare_loop(paths: list[Path]) -> None:
    for path in paths:
        with Image.open(path) as file:
            image: Image.Image = file
            if image.mode == "RGBA":
                image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
            np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BILINEAR))


def bare_rate(paths: list[Path], cores: int) -> float:
    """Images per second of one bare loop on each core."""
    loops = [multiprocessing.get_context("fork").Process(target=bare_loop, args=(paths[core::cores],))
             for core in range(cores)]  # fmt: skip
    began = time.perf_counter()
    for loop in loops:
        loop.start()
    for loop in loops:
        loop.join()
    return len(paths) / (time.perf_counter() - began)


def pack_rate(folder: Path, cache: Path) -> tuple[float, Pack]:
    shutil.rmtree(cache, ignore_errors=True)
    began = time.perf_counter()
    pack = open_pack(Config(data=str(folder), resolution=SIDE, data_options=DataOptions(cache=cache)))
    return len(pack.images) / (time.perf_counter() - began), pack


def seconds_to_write(path: Path, size: int) -> float:
    """How long `size` bytes take into a new file, a MiB at a time, from one process."""
    block = os.urandom(1 << 20)
    began = time.perf_counter()
    with open(path, "wb", buffering=0) as file:
        for start in range(0, size, len(block)):
            file.write(block[: size - start])
    seconds = time.perf_counter() - began
    path.unlink()
    return seconds


def feed_rate(pack: Pack, seconds: float = 2) -> float:
    """Images per second that the loader alone gives: gathered, moved and scaled, batches of 128."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    batches = Batches(pack.images, 128, 0, 0, 1, device, torch.float32, resident=device.type == "cuda")
    done, began = 0, time.perf_counter()
    while (passed := time.perf_counter() - began) < seconds:
        batches.at(done)
        done += 128
    if device.type == "cuda":
        torch.cuda.synchronize()
        passed = time.perf_counter() - began
    return done / passed


def main(images: int = 100_000, rounds: int = 3) -> None:
    """Args:
    images: Small images to pack; a part of that of the larger ones.
    rounds: How often each is measured.
    """
    cores = available_cores()
    with tempfile.TemporaryDirectory() as scratch:
        for number, (kind, (_, _, fewer)) in enumerate(KINDS.items()):
            paths = write(Path(scratch, str(number)), kind, images // fewer)
            ratios = []
            for _ in range(rounds):
                bare = bare_rate(paths, cores)
                packed, pack = pack_rate(paths[0].parent, Path(scratch, "cache"))
                ratios.append(packed / bare)
            print(f"{kind}: {packed / cores:,.0f} images/s per core, {cores} cores; of the bare loop's rate: "
                  f"{statistics.median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f}, n = {rounds})")  # fmt: skip
            if number == 0:
                first, again = (seconds_to_write(Path(scratch, "bytes"), pack.images.nbytes) for _ in range(2))
                print(f"packing took {len(paths) / packed:.2f} s; {pack.images.nbytes >> 20:,} MiB are written in "
                      f"{first:.2f} s, again in {again:.2f} s")  # fmt: skip
                print(f"the pack feeds {feed_rate(pack):,.0f} images/s, {torch.get_num_threads()} threads")
        for count in (images // 5, images):
            folder = Path(scratch, f"{count} images")
            write(folder, "PNG 64×64", count)
            main, worker = memory(folder, Path(scratch, "cache"))
            print(f"{count:,} images: {main:.0f} MiB of memory over what Python and torch take; "
                  f"the largest worker has {worker:.0f} MiB in all")  # fmt: skip


def memory(folder: Path, cache: Path) -> tuple[float, float]:
    """MiB that a process takes to pack the images, at its highest, over what it had when all was imported; and all that
    its largest worker has, shared pages among it."""
    shutil.rmtree(cache, ignore_errors=True)
    command = [sys.executable, "-c", ALONE, str(folder), str(cache)]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    return int(said[-2]) / 1024, int(said[-1]) / 1024


if __name__ == "__main__":
    tyro.cli(main)
