"""Where images come from. To add a source: write a class with the members of Source and name it in SOURCES."""

import errno
import hashlib
import inspect
import io
import os
import stat
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Protocol

from PIL import Image, UnidentifiedImageError

from gan.data.locks import waiting_lock
from gan.data.sprites import draw_sprite
from gan.errors import RunError, UsageError, reason, suggestion
from gan.telemetry.console import say

SUFFIXES = (
    *(".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".gif"),
    *(".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm", ".avif", ".heic", ".heif"),
)
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "AVIF")
"""What a file may be, whatever its name says. Pillow's others are left out: EPS, for one, runs a program."""
HIDDEN = (".", "__MACOSX")
SMALL_FILE = 64 << 10
"""Bytes. What has no more is read at once, which is sooner done than the many small reads of Pillow's decoders."""
MEMBER_BYTES, SMALL_BYTES, RATIO = 512 << 20, 16 << 20, 200
"""In a zip: the largest file, unpacked; and above the second size no file, above the first no archive, may unpack to
more than RATIO times its packed size. Photographs hardly shrink, drawings by ten or twenty times."""
PACK_FILES = {"images.bin", "index.json"}
OF_THE_MACHINE = {
    *(errno.EIO, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.ENODEV, errno.ESTALE),
    *(errno.ETIMEDOUT, errno.ENOTCONN, errno.ECONNRESET, errno.EHOSTDOWN, errno.EHOSTUNREACH),
}
"""Errors of a disk, of its network or of this process, and of no image."""
Refusal = tuple[str, str]
"""(file, why it is left out)"""


class Source(Protocol):
    """A fixed, ordered set of images, each opened by its number (from several threads or forked processes at once)."""

    name: str
    refused: list[Refusal]
    """Files that look like images but are not even tried."""
    passed_over: int
    """Files without an image's suffix, hidden ones aside."""

    def __len__(self) -> int: ...

    def fingerprint(self) -> str:
        """Changes when an image is added, removed or altered; cheap, so no pixels are read."""

    def label(self, index: int) -> str:
        """What to call image `index` in a message."""

    def open(self, index: int) -> Image.Image:
        """Image `index`, of any size and mode, not yet decoded."""


class Folder:
    """Every image file below a folder, in the order of their names. Hidden files and folders are left out. Links are
    followed, but no folder or file counts twice, by whatever names it can be reached."""

    def __init__(self, path: Path):
        self.name, self.root = str(path), path
        self.refused: list[Refusal] = []
        self.passed_over = 0
        self.files: list[tuple[str, str]] = []  # (name below the root, what changes when the file does)
        seen: set[tuple[int, int]] = set()
        self.prefix = os.path.join(path, "")
        for name in sorted(self.names()):
            try:
                facts = os.stat(self.prefix + name)
            except OSError as error:
                check_machine(error, self.prefix + name)
                why = "is a dangling link" if error.errno == errno.ENOENT else reason(error)
                self.refused.append((self.prefix + name, why))
                continue
            if complaint := unfit(facts):
                self.refused.append((self.prefix + name, complaint))
            elif (identity := (facts.st_dev, facts.st_ino)) not in seen:
                seen.add(identity)
                self.files.append((name, f"{facts.st_size} {facts.st_mtime_ns} {facts.st_ctime_ns} {facts.st_ino}"))

    def names(self) -> Iterator[str]:
        """Whatever has an image's suffix, folders aside, by its name below the root with / between."""
        visited: set[tuple[int, int]] = set()
        unreadable: list[OSError] = []
        for folder, folders, files in os.walk(self.root, followlinks=True, onerror=unreadable.append):
            facts = os.stat(folder)
            if (identity := (facts.st_dev, facts.st_ino)) in visited:
                folders.clear()
                continue
            visited.add(identity)
            if {*files} >= PACK_FILES:  # a pack is no folder of images, though it holds a picture
                folders.clear()
                continue
            folders[:] = sorted(name for name in folders if not name.startswith(HIDDEN))
            below = os.path.relpath(folder, self.root).replace(os.sep, "/") + "/"
            visible = [name for name in files if not name.startswith(HIDDEN)]
            images = [name for name in visible if name.lower().endswith(SUFFIXES)]
            self.passed_over += len(visible) - len(images)
            yield from (below.removeprefix("./") + name for name in images)
        for error in unreadable:
            check_machine(error, error.filename)
            self.refused.append((error.filename, reason(error)))

    def __len__(self) -> int:
        return len(self.files)

    def fingerprint(self) -> str:
        """Of each file's name, size, times and inode."""
        return digest(" ".join(facts) for facts in (*self.files, *self.refused))

    def label(self, index: int) -> str:
        """Its path."""
        return self.prefix + self.files[index][0]

    def open(self, index: int) -> Image.Image:
        """Small files are read at once, larger ones as they are decoded. Raises OSError, ValueError."""
        name = self.label(index)
        file = os.open(name, os.O_RDONLY | getattr(os, "O_BINARY", 0))  # in half the time of Python's open
        try:
            content = os.read(file, SMALL_FILE)
            whole = len(content) == os.fstat(file).st_size
        finally:
            os.close(file)
        return open_image(io.BytesIO(content) if whole else name, name)


class Zip:
    """Every image file in a .zip, in the order of their names, read without unpacking."""

    def __init__(self, path: Path):
        self.name, self.path = str(path), path
        self.archives: dict[int, zipfile.ZipFile] = {}
        try:
            members = self.archive().infolist()
        except (zipfile.BadZipFile, OSError, NotImplementedError, ValueError) as error:
            raise UsageError(
                f"cannot open {path} as a zip file: {reason(error)}. Give a folder of images or a .zip."
            ) from None
        files = [member for member in members if not member.is_dir()]
        found = sorted((file for file in files if is_image_name(file.filename)), key=lambda file: file.filename)
        self.passed_over = sum(not is_image_name(file.filename) and not is_hidden(file.filename) for file in files)
        complaints = [unfit_member(member) for member in found]
        self.refused = [(f"{path}:{found[place].filename}", why) for place, why in enumerate(complaints) if why]
        self.members = [member for member, why in zip(found, complaints, strict=True) if not why]
        unpacked, packed = sum(member.file_size for member in self.members), path.stat().st_size
        if unpacked > max(RATIO * packed, MEMBER_BYTES):
            raise UsageError(f"{path} has {packed:,} bytes but would unpack to {unpacked:,}, as no images do. "
                             "If it is what it should be, unpack it and give the folder.")  # fmt: skip

    def archive(self) -> zipfile.ZipFile:
        """This process' own: a forked one shares its parent's place in the file."""
        if os.getpid() not in self.archives:
            self.archives[os.getpid()] = zipfile.ZipFile(self.path)
        return self.archives[os.getpid()]

    def __len__(self) -> int:
        return len(self.members)

    def fingerprint(self) -> str:
        """Of each member's name, size and checksum: the same wherever the archive lies."""
        members = (f"{member.filename} {member.file_size} {member.CRC}" for member in self.members)
        return digest([*members, *(f"{name.removeprefix(f'{self.path}:')} {why}" for name, why in self.refused)])

    def label(self, index: int) -> str:
        """ARCHIVE:MEMBER."""
        return f"{self.name}:{self.members[index].filename}"

    def open(self, index: int) -> Image.Image:
        """Unpacked into memory, no more than the member claims to hold. Raises ValueError, zipfile's and zlib's."""
        member = self.members[index]
        with self.archive().open(
            member
        ) as file:  # no more than it claims to hold, or a small file could fill the memory
            content = file.read(member.file_size)
        return open_image(io.BytesIO(content), member.filename)


class Sprites:
    """The built-in creatures, drawn as they are asked for; always the same ones."""

    name = "sprites"

    def __init__(self, resolution: int, argument: str = "", count: int = 10_000):
        self.refused: list[Refusal] = []
        self.passed_over = 0
        if argument:
            raise UsageError(f"sprites takes nothing after it, but {argument!r} was given.")
        self.count = count
        self.size = max(128, 2 * resolution)

    def __len__(self) -> int:
        return self.count

    def fingerprint(self) -> str:
        """Of their number and size, and of the pixels of some: it changes with the code that draws them."""
        sample = (draw_sprite(index, self.size).tobytes() for index in range(8))  # changes with the drawing code
        return digest([f"{self.count} {self.size}", *(hashlib.sha256(pixels).hexdigest() for pixels in sample)])

    def label(self, index: int) -> str:
        """Its number."""
        return f"sprite {index}"

    def open(self, index: int) -> Image.Image:
        """Drawn now: RGBA, `size` pixels a side."""
        return draw_sprite(index, self.size)


class Torchvision:
    """torchvision:NAME, e.g. MNIST, FashionMNIST, CIFAR10, CelebA: the training split (all of CelebA), fetched once."""

    def __init__(self, name: str, root: Path, download: bool = True):
        import torchvision  # takes a second or two, so only when it is asked for

        self.name, self.refused, self.passed_over = f"torchvision:{name}", list[Refusal](), 0
        available = torchvision.datasets.__all__
        if name not in available:
            raise UsageError(f"torchvision has no data set {name!r}{suggestion(name, available)}")
        dataset_class = getattr(torchvision.datasets, name)
        accepted = inspect.signature(dataset_class.__init__).parameters
        wishes = {"root": str(root), "train": True, "split": "all" if name == "CelebA" else "train",
                  "download": download}  # fmt: skip
        try:
            lock: AbstractContextManager = nullcontext()
            if download:
                root.mkdir(parents=True, exist_ok=True)
                lock = waiting_lock(root / f"{name}.lock", f"downloading {self.name}")
            with lock:
                self.dataset = dataset_class(**{key: value for key, value in wishes.items() if key in accepted})
        except (TypeError, ValueError) as error:
            raise UsageError(
                f"{self.name} cannot be loaded by its name alone ({reason(error)}); give a folder instead."
            ) from None
        except Exception as error:  # the loaders raise whatever their download or unpacking raised
            raise RunError(f"could not get {self.name}: {reason(error)}. Check the network, or put the files of the "
                           f"data set into {root}.") from None  # fmt: skip

    def __len__(self) -> int:
        return len(self.dataset)

    def fingerprint(self) -> str:
        """Of the data set's name and length: its files do not change."""
        return digest([self.name, str(len(self))])

    def label(self, index: int) -> str:
        """The data set's name and the number."""
        return f"{self.name} image {index}"

    def open(self, index: int) -> Image.Image:
        """As the data set gives it. Raises UsageError where it gives no images."""
        image = self.dataset[index][0]
        if not isinstance(image, Image.Image):
            raise UsageError(f"{self.name} does not hold images; choose an image data set of torchvision.")
        return image


SOURCES: dict[str, Callable[[str, int, Path, bool], Source]] = {
    "sprites": lambda argument, resolution, cache, download: Sprites(resolution, argument),
    "torchvision": lambda argument, resolution, cache, download: Torchvision(argument, cache / "torchvision", download),
}
"""Sources by name, built from (text after the colon, resolution, cache folder, whether to fetch what is not there).
Anything else is a path."""


def open_source(data: str, resolution: int, cache: Path, download: bool = True) -> Source:
    """`--data` → the images it names. Raises UsageError when there are none, RunError when they cannot be fetched."""
    path = path_of(data)
    if path is None and data:
        if os.path.exists(data) and os.environ.get("RANK", "0") == "0":
            say(f"{data} names images of this program; for those that are here under that name give ./{data}.")
        kind, _, argument = data.partition(":")
        return SOURCES[kind](argument, resolution, cache, download)
    if path is None or not os.path.exists(path):
        raise UsageError(
            f"there is no {data!r}{suggestion(data, SOURCES)} Give a folder, a .zip, torchvision:NAME, or sprites."
        )
    if not path.is_dir() and (why := unfit(os.stat(path))):
        raise UsageError(f"{data} {why}. Give a folder of images or a .zip.")
    source: Source = Folder(path) if path.is_dir() else Zip(path)
    if not len(source) and not source.refused:
        raise UsageError(
            f"{data} holds no image ({', '.join(sorted(SUFFIXES))}); --data takes a folder or .zip of images."
        )
    return source


def path_of(data: str) -> Path | None:
    """Where `--data` points to; None where it is the name of a source, or nothing."""
    kind, _, argument = data.partition(":")
    named = not data or (kind in SOURCES and (argument or kind == data))
    return None if named else Path(os.path.expanduser(data))


def from_anywhere(data: str) -> str:
    """`--data` as it means the same in any working folder."""
    path = path_of(data)
    return data if path is None else os.path.abspath(path)


def is_image_name(name: str) -> bool:
    """An image's suffix, and no hidden file or folder (.x, macOS's ._x and __MACOSX) on the way."""
    return name.lower().endswith(SUFFIXES) and not is_hidden(name)


def is_hidden(name: str) -> bool:
    """Whether a hidden file or folder is on the way."""
    return any(part.startswith(HIDDEN) and part not in (".", "..") for part in name.split("/"))


def unfit(facts: os.stat_result) -> str:
    """Why the file is not tried, or nothing."""
    if not stat.S_ISREG(facts.st_mode):
        kinds = {stat.S_IFIFO: "pipe", stat.S_IFSOCK: "socket", stat.S_IFDIR: "folder"}
        return f"is a {kinds.get(stat.S_IFMT(facts.st_mode), 'device')}, not a file"
    return "" if facts.st_size else "is empty"


def unfit_member(member: zipfile.ZipInfo) -> str:
    """Why the file in a zip is not tried, or nothing."""
    path, size = PurePosixPath(member.filename.replace("\\", "/")), member.file_size
    if path.is_absolute() or ".." in path.parts or path.parts[0].endswith(":"):
        return "its path leads out of the archive"
    if member.flag_bits & 1:
        return "is encrypted"
    if size > MEMBER_BYTES or size > max(RATIO * member.compress_size, SMALL_BYTES):
        return f"has {member.compress_size:,} bytes but would unpack to {size:,}, as no image does"
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return "is packed by another method than deflate"
    return "" if size else "is empty"


def open_image(file: str | io.BytesIO, name: str) -> Image.Image:
    """The image in a file, whatever its name. Raises ValueError when there is none."""
    try:
        return Image.open(file, formats=known_formats())
    except UnidentifiedImageError:
        if name.lower().endswith((".heic", ".heif")):
            raise ValueError("HEIC is not read here; save it as JPEG or PNG") from None
        raise ValueError("is not an image, or is damaged where it begins") from None


@lru_cache
def known_formats() -> list[str]:
    """Those of FORMATS that this Pillow was built with."""
    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


def check_machine(error: Exception, label: str) -> None:
    """Refuse to hold against an image what is the machine's fault: it would be left out for good. Raises RunError."""
    if isinstance(error, MemoryError) or getattr(error, "errno", None) in OF_THE_MACHINE:
        raise RunError(
            f"could not read {label}: {reason(error)}. Give the same command again when that is over, with "
            "--data-options.workers 1 if memory ran out; if it stays, take the file away."
        )


def digest(lines: Iterable[str]) -> str:
    """SHA-256 of the lines, in hexadecimal."""
    return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogateescape")).hexdigest()
