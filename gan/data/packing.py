"""Making a pack: images are decoded by a process for each core, straight into their places in the file."""

import contextlib
import csv
import hashlib
import json
import math
import multiprocessing
import os
import re
import shutil
import signal
import sys
import tempfile
import threading
import time
import warnings
from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, PngImagePlugin
from tqdm import tqdm

from gan.config import Config
from gan.data.pixels import pixels_to_decode, to_pixels
from gan.data.sources import PACK_FILES, Refusal, Source, check_machine
from gan.errors import RunError, UsageError, UserFault, reason
from gan.telemetry.console import say
from gan.telemetry.grids import evenly, grid, write_picture

JOB_IMAGES, JOB_BYTES = 256, 4 << 20
"""At most so many images, and bytes of pixels, are one job of a worker."""
WRITE_BYTES = 1 << 20
"""So many are written at once: single rows would take three times as long."""
LOOK = 64
REFUSED = "refused.csv"
"""What was left out of a pack that was to take this one's place, and was refused."""
FILES = {*PACK_FILES, "rejected.csv", "reals.png", REFUSED}
UNFINISHED = ".unfinished-pack-"
TEXT_BYTES = 64 << 20
"""What may be written about the picture inside a PNG, uncompressed."""


@dataclass
class Census:
    """What was found in a source, or in a part of it, in the order of the images."""

    decoded: list[int] = field(default_factory=list)
    digests: bytearray = field(default_factory=bytearray)
    rejected: list[Refusal] = field(default_factory=list)
    modes: Counter[str] = field(default_factory=Counter)
    smallest: tuple[int, int] = (0, 0)
    largest: tuple[int, int] = (0, 0)

    def add(self, more: "Census") -> None:
        """Count in those of a later part."""
        self.decoded += more.decoded
        self.digests += more.digests
        self.rejected += more.rejected
        self.modes += more.modes
        if more.decoded:
            self.smallest = min(self.smallest if any(self.smallest) else more.smallest, more.smallest, key=math.prod)
            self.largest = max(self.largest, more.largest, key=math.prod)

    def firsts(self) -> np.ndarray:
        """For each decoded image the first one with the same pixels, both counted among the decoded: int64."""
        digests = np.frombuffer(self.digests, np.uint64).reshape(len(self.decoded), 4)
        order = np.argsort(digests[:, 0], kind="stable")
        new = np.ones(len(order), bool)
        new[1:] = (digests[order[1:]] != digests[order[:-1]]).any(1)
        first = np.empty(len(order), np.int64)
        first[order] = order[np.maximum.accumulate(np.where(new, np.arange(len(order)), 0))]
        return first


Submit = Callable[[range], "Future[Census]"]
"""Have images decoded, some time; what will come of it."""


class Decoder:
    """Decodes a range of a source's images and writes their rows into the pack's file."""

    def __init__(self, source: Source, config: Config, path: Path):
        self.source, self.config, self.path = source, config, path
        self.shape = (config.resolution, config.resolution, config.channels)

    def __call__(self, numbers: range) -> Census:
        """What was found. The row of an image that cannot be read is zeros."""
        census, sizes, row_bytes = Census(), list[tuple[int, int]](), math.prod(self.shape)
        with open(self.path, "r+b", WRITE_BYTES) as file:
            file.seek(numbers.start * row_bytes)
            for number in numbers:
                try:
                    row, size, mode = self.decode(number)
                except UserFault:
                    raise
                except Exception as error:  # decoders raise anything: SyntaxError, struct.error, zlib.error, …
                    check_machine(error, self.source.label(number))
                    census.rejected.append((self.source.label(number), reason(error)))
                    file.write(bytes(row_bytes))
                    continue
                file.write(row.data)
                census.decoded.append(number)
                census.digests += row_digest(row)
                census.modes[mode] += 1
                sizes.append(size)
        if sizes:
            census.smallest, census.largest = min(sizes, key=math.prod), max(sizes, key=math.prod)
        return census

    def decode(self, number: int) -> tuple[np.ndarray, tuple[int, int], str]:
        """An image's pixels, and size and mode of the file."""
        options = self.config.data_options
        with self.source.open(number) as image:
            size, mode = image.size, image.mode
            if pixels_to_decode(image) > options.max_megapixels * 1e6:
                raise ValueError(f"has {size[0]}×{size[1]} pixels, more than --data-options.max-megapixels allows")
            return to_pixels(image, *self.shape[1:], options.fit, options.background), size, mode


def row_digest(row: np.ndarray) -> bytes:
    """SHA-256 of an image's pixels: 32 bytes."""
    return hashlib.sha256(row.data).digest()


def pack_images(source: Source, folder: Path, config: Config, facts: dict[str, Any], alone: bool,
                former: bool) -> dict[str, Any]:  # fmt: skip
    """Decode every image of `source` into `folder`. The index: `facts` and what was found. `alone`: no other process
    can be doing the same, so what one that was killed has left behind is removed. `former`: a whole pack of other
    images is there, and stays where too many of these are left out. Raises UsageError."""
    own = re.compile(re.escape(f"{UNFINISHED}{folder.name}-") + "[a-z0-9_]{8}")  # no one's who packs NAME-more there
    for leftover in filter(lambda path: own.fullmatch(path.name), folder.parent.iterdir() if alone else ()):
        shutil.rmtree(leftover, ignore_errors=True)
    unfinished = Path(tempfile.mkdtemp("", f"{UNFINISHED}{folder.name}-", folder.parent))
    os.chmod(unfinished, 0o777 & ~umask())
    try:
        index = fill(unfinished, source, config, facts)
        check_replaceable(folder)
        if former and (why := complaint(index, config, table := folder / REFUSED)):
            shutil.move(unfinished / "rejected.csv", table)
            raise UsageError(f"{why} {folder} stays as it was.")
        shutil.rmtree(folder, ignore_errors=True)
        with (
            contextlib.nullcontext() if alone else contextlib.suppress(OSError)
        ):  # another may just have put the same there
            unfinished.replace(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    say(summary(index, folder))
    return index


def complaint(index: dict[str, Any], config: Config, table: Path) -> str:
    """Why a pack is no good, where too much was left out of it, or nothing. `table`: where those files are listed."""
    rejected, tried = index["rejected"], index["tried"]
    if index["shape"][0] and rejected <= config.data_options.max_rejected * tried:
        return ""
    reasons = ", ".join(f"{count} × {why!r}" for why, count in index["reasons"])
    return (
        f"{rejected} of {tried} images cannot be read: {reasons}; e.g. {index['example']}. All are listed in "
        f"{table}. Mend or remove them, or raise --data-options.max-rejected."
    )


def fill(unfinished: Path, source: Source, config: Config, facts: dict[str, Any]) -> dict[str, Any]:
    """Write the files of a pack."""
    began = time.perf_counter()
    (unfinished / "images.bin").touch()
    census = Census(rejected=list(source.refused))
    for part in decode_all(Decoder(source, config, unfinished / "images.bin"), len(source)):
        census.add(part)
    first = census.firsts()
    duplicate = first != np.arange(len(first))
    kept = ~duplicate if config.data_options.drop_duplicates else np.ones(len(first), bool)
    shape = (int(kept.sum()), config.resolution, config.resolution, config.channels)
    close_gaps(unfinished / "images.bin", np.array(census.decoded, np.int64)[kept], math.prod(shape[1:]))
    with open(unfinished / "rejected.csv", "w", newline="", encoding="utf-8", errors="surrogateescape") as table:
        csv.writer(table).writerows([("file", "reason"), *census.rejected])
    if len(first):
        write_picture(grid(some_rows(unfinished / "images.bin", shape)), unfinished / "reals.png")
    whole = np.frombuffer(census.digests, np.uint8).reshape(len(first), hashlib.sha256().digest_size)[kept]
    index = {
        **facts,
        "dtype": "uint8",
        "shape": shape,
        "source": source.name,
        "tried": len(source) + len(source.refused),
        "rejected": len(census.rejected),
        "reasons": Counter(why for _, why in census.rejected).most_common(3),
        "example": census.rejected[0][0] if census.rejected else "",
        "passed_over": source.passed_over,
        "duplicates": int(duplicate.sum()),
        "smallest": census.smallest,
        "largest": census.largest,
        "modes": dict(census.modes.most_common()),
        "seconds": round(time.perf_counter() - began, 2),
        "sha256": hashlib.sha256(whole.tobytes()).hexdigest(),
    }
    (unfinished / "index.json").write_text(json.dumps(index, indent=1))
    return index


def some_rows(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    """LOOK of the images. Not through a map of the file, whose pages would count as this process' memory."""
    size = math.prod(shape[1:])
    rows = [np.fromfile(path, np.uint8, size, offset=size * number) for number in evenly(shape[0], LOOK).tolist()]
    return np.stack(rows).reshape(-1, *shape[1:])


def check_replaceable(folder: Path) -> None:
    """Refuse to write a pack where something else is. Raises UsageError."""
    if not folder.exists():
        return
    others = {"."} if not folder.is_dir() else {*os.listdir(folder)} - FILES
    if others:
        raise UsageError(f"{folder} is not a pack alone ({', '.join(sorted(others)[:3])}); choose another place.")


def umask() -> int:
    """What the user takes away from the permissions of new files."""
    os.umask(mask := os.umask(0o077))
    return mask


def summary(index: dict[str, Any], folder: Path) -> str:
    """What was found, in a few lines."""
    smallest, largest = ("×".join(map(str, index[name])) for name in ("smallest", "largest"))
    modes = ", ".join(f"{mode} {count:,}" for mode, count in index["modes"].items())
    dropped = " (dropped)" if index["drop_duplicates"] else ""
    rejected = f"{index['rejected']:,} left out (see {folder}/rejected.csv)" if index["rejected"] else "none left out"
    over = f", {index['passed_over']:,} files without an image's suffix passed over" if index["passed_over"] else ""
    if not index["shape"][0]:
        return f"Packed no image of {index['source']}: {rejected}{over}."
    return (
        f"Packed {index['shape'][0]:,} images of {index['source']} in {index['seconds']:.1f} s: {smallest} to {largest}"
        f" pixels, {modes}; {rejected}, {index['duplicates']:,} exact duplicates{dropped}{over}.\n"
        f"A look at them: {folder}/reals.png"
    )


def close_gaps(path: Path, kept: np.ndarray, row_bytes: int) -> None:
    """Move the rows `kept` (ascending) up to the front of the file and cut off the rest."""
    with open(path, "r+b") as file:
        for place, number in enumerate(kept.tolist()):
            if place != number:
                file.seek(number * row_bytes)
                row = file.read(row_bytes)
                file.seek(place * row_bytes)
                file.write(row)
        file.truncate(len(kept) * row_bytes)


def decode_all(decoder: Decoder, count: int) -> Iterator[Census]:
    """What `decoder` says of `count` images, part by part in their order. A few jobs are under way at any time."""
    most = max(1, min(JOB_IMAGES, JOB_BYTES // math.prod(decoder.shape)))
    workers = max(1, min(decoder.config.data_options.workers or available_cores(), math.ceil(count / most)))
    jobs, start = list[range](), 0
    while start < count:  # smaller ones at the end, so that all workers end at about the same time
        size = min(most, math.ceil((count - start) / (4 * workers)))
        jobs.append(range(start, start + size))
        start += size
    done = 0
    with (
        quiet_pillow(),
        pool(decoder, workers) as submit,
        tqdm(total=count, desc=f"Packing {decoder.source.name}", unit="image", disable=None) as bar,
    ):
        try:
            for job, part in zip(jobs, in_order(submit, jobs, 4 * workers), strict=True):
                yield part
                done = job.stop
                bar.update(len(job))
        except BrokenExecutor:
            names = [decoder.source.label(number) for number in (done, min(count, done + 4 * workers * most) - 1)]
            raise RunError(
                f"a process that decodes images was killed somewhere in {names[0]} … {names[1]}. If memory ran out, "
                "set --data-options.workers 1; otherwise look at those files."
            ) from None


def in_order(submit: Submit, jobs: list[range], ahead: int) -> Iterator[Census]:
    """The results of each job, in the order of the jobs; as many as `ahead` are under way at once."""
    waiting: deque[Future[Census]] = deque()
    for job in jobs:
        waiting.append(submit(job))
        if len(waiting) > ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


@contextlib.contextmanager
def pool(decoder: Decoder, workers: int) -> Iterator[Submit]:
    """How to have a range decoded: by forked processes, since small images keep Python's lock busy; by threads where
    processes cannot be forked safely; by nobody else where one is enough."""
    if workers == 1:
        yield lambda numbers: finished(decoder(numbers))
        return
    executor: ProcessPoolExecutor | ThreadPoolExecutor
    forked = sys.platform == "linux"
    if forked:
        executor = ProcessPoolExecutor(workers, multiprocessing.get_context("fork"), begin_worker, (decoder,))
    else:
        executor = ThreadPoolExecutor(workers)
    try:
        yield lambda numbers: executor.submit(decode_in_worker if forked else decoder, numbers)
    finally:
        executor.shutdown(cancel_futures=True)


def finished(part: Census) -> Future[Census]:
    """What `submit` returns where the work is done at once."""
    future: Future[Census] = Future()
    future.set_result(part)
    return future


in_worker: list[Decoder] = []
"""In a forked process, what it was forked for: it is inherited, so nothing has to be sent."""


def begin_worker(decoder: Decoder) -> None:
    """Leave signals to the parent, and leave with it, even when it is killed."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    in_worker.append(decoder)
    parent = os.getppid()

    def leave_with_parent() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=leave_with_parent, daemon=True).start()


def decode_in_worker(numbers: range) -> Census:
    """What a forked process does with a job."""
    return in_worker[0](numbers)


@contextlib.contextmanager
def quiet_pillow() -> Iterator[None]:
    """Pillow's own limit on pixels and its warnings off: `Decoder` has a limit of its own, and lists what fails. So are
    those that Python has about forks."""
    limits = Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK, PngImagePlugin.MAX_TEXT_MEMORY
    Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK, PngImagePlugin.MAX_TEXT_MEMORY = None, TEXT_BYTES, TEXT_BYTES
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="PIL")
            warnings.filterwarnings("ignore", "This process .*multi-threaded")  # and forks; these only decode
            yield
    finally:
        Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK, PngImagePlugin.MAX_TEXT_MEMORY = limits


def available_cores() -> int:
    """CPU cores this process may use; in a job of Slurm no more than it asked for, whatever the node has."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, int(os.environ.get("SLURM_CPUS_PER_TASK", cores)))
