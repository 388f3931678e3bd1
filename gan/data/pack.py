"""A pack: every image decoded once, as uint8 NHWC rows in one file, so that training never decodes.

    PACK/images.bin     the pixels, (images, resolution, resolution, channels) without a header
    PACK/index.json     their shape, where they came from, what was found in them and a checksum
    PACK/rejected.csv   files that were left out, each with its reason
    PACK/reals.png      a look at some of them

Packs live in a cache under a fingerprint of the files and the settings, or where `gan pack` was told to put them. A
pack is written beside its place and then renamed, under a lock, so that whoever looks sees a whole pack or none; its
checksum is compared whenever it is opened.
"""

import hashlib
import json
import math
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from tqdm import tqdm

from gan.config import Config, DataOptions, check
from gan.data.locks import waiting_lock
from gan.data.packing import available_cores, check_replaceable, complaint, pack_images, row_digest
from gan.data.sources import PACK_FILES, Source, digest, open_source, path_of
from gan.errors import UsageError, reason
from gan.telemetry.console import say

VERSION = 3
BLOCK_BYTES = 8 << 20


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
    given = path_of(config.data)
    if given and is_pack(given):
        return open_given(given, config)
    cache = cache_folder(config.data_options)
    source = open_source(config.data, config.resolution, cache)
    try:
        wanted = fingerprint(source, config)
        return find_or_make(source, cache / "packs" / wanted[:16], config, wanted)
    except OSError as error:
        raise UsageError(
            f"cannot keep the packed images in {cache}: {reason(error)}; set --data-options.cache."
        ) from None


def look_up(config: Config) -> tuple[Source | None, Pack | None]:
    """The images that --data names, and their pack where there is one, without decoding or downloading anything. There
    is no source where --data names a pack itself. Raises UsageError, and RunError where they would be downloaded."""
    given = path_of(config.data)
    if given and is_pack(given):
        return None, open_given(given, config)
    cache = cache_folder(config.data_options)
    source = open_source(config.data, config.resolution, cache, download=False)
    wanted = fingerprint(source, config)
    pack = read_pack(cache / "packs" / wanted[:16], wanted)
    return source, pack and check_rejected(pack, config)


def find_or_make(source: Source, folder: Path, config: Config, wanted: str) -> Pack:
    """The pack of `source` in `folder`; made, or made again, where there is no whole one of the fingerprint `wanted`.
    Raises UsageError when too many files were left out."""
    if (pack := read_pack(folder, wanted)) is None:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with waiting_lock(folder.with_name(f".{folder.name}.lock"), f"packing {source.name}") as alone:
            if (pack := read_pack(folder, wanted)) is None:
                facts = {"version": VERSION, "fingerprint": wanted, **settings(config)}
                index = pack_images(source, folder, config, facts, alone, former=read_pack(folder) is not None)
                pack = Pack(folder, map_images(folder, index["shape"]), index)
    return check_rejected(pack, config)


def check_rejected(pack: Pack, config: Config) -> Pack:
    """The pack, unless too much was left out of it. Raises UsageError."""
    if why := complaint(pack.index, config, pack.folder / "rejected.csv"):
        raise UsageError(why)
    return pack


def open_given(folder: Path, config: Config) -> Pack:
    """A pack that --data names itself. Raises UsageError when it is damaged or does not fit the run."""
    pack = read_pack(folder)
    if pack is None:
        raise UsageError(f"the pack {folder} is damaged or of another version; make it again with gan pack.")
    for name in ("resolution", "channels"):
        if pack.index[name] != (wish := getattr(config, name)):
            raise UsageError(f"{folder} was packed with --{name} {pack.index[name]}, but this run has {wish}.")
    return check_rejected(pack, config)


def is_pack(folder: Path) -> bool:
    """Whether the folder holds a pack, whole or not, rather than images."""
    return all(os.path.isfile(folder / name) for name in PACK_FILES)


def cache_folder(options: DataOptions) -> Path:
    """`--data-options.cache`, or gan/ in the XDG cache folder."""
    standard = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gan"
    return options.cache or standard


def settings(config: Config) -> dict[str, Any]:
    """What decides the pixels besides the files themselves."""
    options = config.data_options
    names = ("fit", "background", "max_megapixels", "drop_duplicates")
    return {
        "resolution": config.resolution,
        "channels": config.channels,
        **{name: getattr(options, name) for name in names},
    }


def fingerprint(source: Source, config: Config) -> str:
    """Of the files and of all that decides their pixels, in hexadecimal."""
    return digest(json.dumps(facts, sort_keys=True) for facts in (VERSION, source.fingerprint(), settings(config)))


def read_pack(folder: Path, wanted: str | None = None) -> Pack | None:
    """The pack in `folder`, every byte checked; None when there is none, it is damaged, or of other images than
    `wanted`, a fingerprint."""
    try:
        index = json.loads((folder / "index.json").read_text())
        shape = tuple(index["shape"])
        whole = index["version"] == VERSION and index["dtype"] == "uint8"
        fits = shape[1:] == (index["resolution"], index["resolution"], index["channels"])
        if not (whole and fits and wanted in (None, index["fingerprint"])):
            return None
        if (folder / "images.bin").stat().st_size != math.prod(shape):
            return None
        if checksum(folder / "images.bin", math.prod(shape[1:])) != index["sha256"]:
            return None
        return Pack(folder, map_images(folder, shape), index)
    except (OSError, ValueError, KeyError, TypeError, ZeroDivisionError):
        return None


def map_images(folder: Path, shape: Sequence[int]) -> np.ndarray:
    """The images of a pack, read as they are asked for."""
    if not shape[0]:
        return np.empty(shape, np.uint8)
    return np.memmap(folder / "images.bin", np.uint8, "r", shape=tuple(shape))


def checksum(path: Path, row_bytes: int) -> str:
    """SHA-256 over the SHA-256 of each image, in hexadecimal; by as many threads as there are cores. Read as a file,
    not through its map, whose pages would count as this process' memory."""
    rows = path.stat().st_size // row_bytes
    block = max(1, BLOCK_BYTES // row_bytes)

    def digests(start: int) -> bytes:
        count = min(block, rows - start)
        values = np.fromfile(path, np.uint8, count * row_bytes, offset=start * row_bytes)
        return b"".join(map(row_digest, values.reshape(count, row_bytes)))

    whole = hashlib.sha256()
    with (
        ThreadPoolExecutor(available_cores()) as pool,
        tqdm(total=rows, desc="Checking the pack", unit="image", disable=None, delay=2, leave=False) as bar,
    ):
        for part in pool.map(digests, range(0, rows, block)):
            whole.update(part)
            bar.update(len(part) // hashlib.sha256().digest_size)
    return whole.hexdigest()


def write_pack(
    source: tyro.conf.Positional[str],
    out: tyro.conf.Positional[Path],
    resolution: int = 64,
    channels: int = 3,
    data_options: DataOptions = DataOptions(),  # noqa: B008 (frozen)
) -> None:
    """Decode images into a pack, which --data takes like a folder. Training does this by itself, into a cache.

    Args:
        source: A folder, a .zip, torchvision:NAME, or sprites.
        out: The pack's folder. A whole pack of the same images stays, another is replaced.
        resolution: Side of the square images in pixels.
        channels: 1 grey, 3 RGB, 4 RGB with alpha.
    """
    config = Config(data=source, resolution=resolution, channels=channels, data_options=data_options, iterations=1)
    check(config)
    out, given = out.resolve(), path_of(source)
    if given and is_pack(given):
        raise UsageError(f"{source} is a pack already.")
    try:
        check_replaceable(out)
        images = open_source(source, resolution, cache_folder(data_options))
        pack = find_or_make(images, out, config, fingerprint(images, config))
    except OSError as error:
        raise UsageError(f"cannot write the pack {out}: {reason(error)}.") from None
    say(f"{len(pack.images)} images in {out}. Train on them with --data {out}")
