"""A pack: every image decoded once, as uint8 NHWC rows in one file, so that training never decodes.

    PACK/images.bin     the pixels, (images, resolution, resolution, channels) without a header
    PACK/index.json     their shape, where they came from and a checksum
    PACK/rejected.csv   files that could not be read, each with its reason

Packs live in a cache under a fingerprint of the files and the settings. A pack is written beside its place and then
renamed, under a lock, so that whoever looks sees a whole pack or none.
"""

import csv
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import filelock
import numpy as np
from tqdm import tqdm

from gan.config import Config
from gan.data.pixels import to_pixels
from gan.data.sources import Source, digest, open_source
from gan.errors import UsageError, UserFault
from gan.telemetry.console import say

VERSION = 1
CHUNK = 1024


@dataclass(frozen=True)
class Pack:
    """`images`: read-only uint8 memory map (images, resolution, resolution, channels)."""

    folder: Path
    images: np.ndarray
    index: dict[str, Any]

    @property
    def content(self) -> str:
        """SHA-256 of the pixels: equal for equal images, wherever they came from."""
        return self.index["sha256"]


def open_pack(config: Config) -> Pack:
    """The pack of `config`'s images, made first if it is not there. Any number of processes may call this at once."""
    cache = cache_folder(config)
    source = open_source(config.data, config.resolution, cache)
    name = digest(json.dumps(facts, sort_keys=True) for facts in (source.fingerprint(), settings(config)))[:16]
    folder = cache / "packs" / name
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with waiting_lock(folder.with_suffix(".lock"), source.name):
            if (pack := read_pack(folder)) is None:
                make_pack(source, folder, config)
                pack = read_pack(folder)
    except OSError as error:
        raise UsageError(
            f"cannot keep the packed images in {cache}: {error.strerror}; set --data-options.cache."
        ) from None
    assert pack is not None
    return pack


def cache_folder(config: Config) -> Path:
    standard = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gan"
    return config.data_options.cache or standard


def settings(config: Config) -> dict[str, Any]:
    """What decides the pixels besides the files themselves."""
    options = config.data_options
    return {"version": VERSION, "resolution": config.resolution, "channels": config.channels, "fit": options.fit,
            "background": options.background, "max_rejected": options.max_rejected}  # fmt: skip


@contextmanager
def waiting_lock(path: Path, name: str) -> Iterator[None]:
    """Hold the lock at `path`, with a word to the user when another process holds it."""
    lock = filelock.FileLock(path)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        say(f"Another process is packing {name}; waiting for it.")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def read_pack(folder: Path) -> Pack | None:
    """The pack in `folder`, or None when there is none or its files do not fit together."""
    try:
        index = json.loads((folder / "index.json").read_text())
        images = np.memmap(folder / "images.bin", np.uint8, "r", shape=tuple(index["shape"]))
        whole = images.nbytes == (folder / "images.bin").stat().st_size and index["version"] == VERSION
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return Pack(folder, images, index) if whole else None


def make_pack(source: Source, folder: Path, config: Config) -> None:
    """Decode every image of `source` into `folder`, under the lock. Raises UsageError for too many bad files."""
    unfinished, refused = folder.with_suffix(".unfinished"), folder.with_suffix(".rejected")
    for leftover in (unfinished, refused, folder):
        shutil.rmtree(leftover, ignore_errors=True)
    unfinished.mkdir()
    rejected: list[tuple[str, str]] = []
    checksum, count = hashlib.sha256(), 0
    with open(unfinished / "images.bin", "wb") as file:
        for number, result in enumerate(decode_all(source, config)):
            if isinstance(result, str):
                rejected.append((source.label(number), result))
            else:
                file.write(result.data)
                checksum.update(result.data)
                count += 1
    with open(unfinished / "rejected.csv", "w", newline="", errors="surrogateescape") as table:
        csv.writer(table).writerows([("file", "reason"), *rejected])
    if not count or len(rejected) > config.data_options.max_rejected * len(source):
        kept = unfinished.replace(refused)
        shares = f"{len(rejected)} of {len(source)} images cannot be read, e.g. {rejected[0][0]} ({rejected[0][1]})"
        raise UsageError(
            f"{shares}; all are listed in {kept}/rejected.csv. Mend them, or raise --data-options.max-rejected."
        )
    index = {**settings(config), "shape": [count, config.resolution, config.resolution, config.channels],
             "source": source.name, "rejected": len(rejected), "sha256": checksum.hexdigest()}  # fmt: skip
    (unfinished / "index.json").write_text(json.dumps(index, indent=1))
    unfinished.replace(folder)


def decode_all(source: Source, config: Config) -> Iterator[np.ndarray | str]:
    """The pixels of each image in order, or why it cannot be read; decoded by a pool of threads, CHUNK at a time."""
    options = config.data_options

    def decode(number: int) -> np.ndarray | str:
        try:
            with source.open(number) as image:
                return to_pixels(image, config.resolution, config.channels, options.fit, options.background)
        except UserFault:
            raise
        except Exception as error:  # decoders raise anything: OSError, SyntaxError, struct.error, zlib.error, …
            return " ".join(str(error).split()) or type(error).__name__

    threads = options.workers or available_cores()
    with (
        ThreadPoolExecutor(threads) as pool,
        tqdm(total=len(source), desc=f"Packing {source.name}", unit="image", disable=None) as bar,
    ):
        for start in range(0, len(source), CHUNK):
            numbers = range(start, min(start + CHUNK, len(source)))
            yield from pool.map(decode, numbers)
            bar.update(len(numbers))


def available_cores() -> int:
    """CPU cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
