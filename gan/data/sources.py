"""Where images come from. To add a source: write a class with these five members and name it in SOURCES."""

import hashlib
import inspect
import io
import os
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath
from typing import Protocol

from PIL import Image

from gan.data.sprites import draw_sprite
from gan.errors import RunError, UsageError, suggestion

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"}
HIDDEN = (".", "__MACOSX")


class Source(Protocol):
    """A fixed, ordered set of images, each opened by its number (from several threads at once)."""

    name: str

    def __len__(self) -> int: ...

    def fingerprint(self) -> str:
        """Changes when an image is added, removed or altered; cheap, so no pixels are read."""

    def label(self, index: int) -> str:
        """What to call image `index` in a message."""

    def open(self, index: int) -> Image.Image:
        """Image `index`, of any size and mode."""


class Folder:
    """Every image file below a folder, in the order of their names. Hidden files and folders are left out; links are
    followed, but no folder is visited twice."""

    def __init__(self, path: Path):
        self.name, self.root = str(path), path
        visited: set[str] = set()
        found: list[Path] = []
        for folder, folders, files in os.walk(path, followlinks=True):
            if (real := os.path.realpath(folder)) in visited:
                folders.clear()
                continue
            visited.add(real)
            folders[:] = sorted(name for name in folders if not name.startswith(HIDDEN))
            found += [Path(folder, name) for name in files if is_image_name(name)]
        self.files = sorted((file for file in found if file.is_file()), key=lambda file: file.as_posix())

    def __len__(self) -> int:
        return len(self.files)

    def fingerprint(self) -> str:
        facts = ((file, file.stat()) for file in self.files)
        return digest(f"{file.relative_to(self.root)} {fact.st_size} {fact.st_mtime_ns}" for file, fact in facts)

    def label(self, index: int) -> str:
        return str(self.files[index])

    def open(self, index: int) -> Image.Image:
        return Image.open(self.files[index])


class Zip:
    """Every image file in a .zip, in the order of their names, read without unpacking."""

    def __init__(self, path: Path):
        self.name = str(path)
        try:
            self.archive = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, OSError) as error:
            raise UsageError(f"cannot open {path} as a zip file: {error}. Give a folder of images or a .zip.") from None
        self.members = sorted(
            (member for member in self.archive.infolist() if is_image_name(member.filename) and not member.is_dir()),
            key=lambda member: member.filename,
        )

    def __len__(self) -> int:
        return len(self.members)

    def fingerprint(self) -> str:
        return digest(f"{member.filename} {member.file_size} {member.CRC}" for member in self.members)

    def label(self, index: int) -> str:
        return f"{self.name}:{self.members[index].filename}"

    def open(self, index: int) -> Image.Image:
        return Image.open(io.BytesIO(self.archive.read(self.members[index])))


class Sprites:
    """The built-in creatures, drawn as they are asked for; always the same ones."""

    name = "sprites"

    def __init__(self, resolution: int, argument: str = "", count: int = 10_000):
        if argument:
            raise UsageError(f"sprites takes nothing after it, but {argument!r} was given.")
        self.count = count
        self.size = max(128, 2 * resolution)

    def __len__(self) -> int:
        return self.count

    def fingerprint(self) -> str:
        sample = (draw_sprite(index, self.size).tobytes() for index in range(8))  # changes with the drawing code
        return digest([f"{self.count} {self.size}", *(hashlib.sha256(pixels).hexdigest() for pixels in sample)])

    def label(self, index: int) -> str:
        return f"sprite {index}"

    def open(self, index: int) -> Image.Image:
        return draw_sprite(index, self.size)


class Torchvision:
    """torchvision:NAME, e.g. MNIST, FashionMNIST, CIFAR10, CelebA: the training split (all of CelebA), fetched once."""

    def __init__(self, name: str, root: Path):
        import torchvision  # takes a second or two, so only when it is asked for

        self.name = f"torchvision:{name}"
        available = torchvision.datasets.__all__
        if name not in available:
            raise UsageError(f"torchvision has no data set {name!r}{suggestion(name, available)}")
        dataset_class = getattr(torchvision.datasets, name)
        accepted = inspect.signature(dataset_class.__init__).parameters
        wishes = {"root": str(root), "train": True, "split": "all" if name == "CelebA" else "train", "download": True}
        try:
            self.dataset = dataset_class(**{key: value for key, value in wishes.items() if key in accepted})
        except (TypeError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise UsageError(
                f"{self.name} cannot be loaded by its name alone ({reason}); give a folder instead."
            ) from None
        except Exception as error:  # the loaders raise whatever their download or unpacking raised
            reason = " ".join(str(error).split()) or type(error).__name__
            raise RunError(
                f"could not get {self.name}: {reason}. Check the network, or put the files of the data set into {root}."
            ) from None

    def __len__(self) -> int:
        return len(self.dataset)

    def fingerprint(self) -> str:
        return digest([self.name, str(len(self))])

    def label(self, index: int) -> str:
        return f"{self.name} image {index}"

    def open(self, index: int) -> Image.Image:
        image = self.dataset[index][0]
        if not isinstance(image, Image.Image):
            raise UsageError(f"{self.name} does not hold images; choose an image data set of torchvision.")
        return image


SOURCES: dict[str, Callable[[str, int, Path], Source]] = {
    "sprites": lambda argument, resolution, cache: Sprites(resolution, argument),
    "torchvision": lambda argument, resolution, cache: Torchvision(argument, cache / "torchvision"),
}
"""Sources by name, built from (text after the colon, resolution, cache folder). Anything else is a path."""


def open_source(data: str, resolution: int, cache: Path) -> Source:
    """`--data` → the images it names. Raises UsageError when there are none."""
    kind, _, argument = data.partition(":")
    path = Path(data).expanduser()
    if kind in SOURCES and (argument or kind == data):
        return SOURCES[kind](argument, resolution, cache)
    if not data or not os.path.exists(path):
        raise UsageError(
            f"there is no {data!r}{suggestion(data, SOURCES)} Give a folder, a .zip, torchvision:NAME, or sprites."
        )
    source: Source = Folder(path) if path.is_dir() else Zip(path)
    if not len(source):
        raise UsageError(
            f"{data} holds no image ({', '.join(sorted(SUFFIXES))}); --data takes a folder or .zip of images."
        )
    return source


def is_image_name(name: str) -> bool:
    """An image's suffix, and no hidden file or folder (.x, macOS's ._x and __MACOSX) on the way."""
    path = PurePosixPath(name)
    hidden = any(part.startswith(HIDDEN) for part in path.parts)
    return path.suffix.lower() in SUFFIXES and not hidden


def digest(lines: Iterable[str]) -> str:
    """SHA-256 of the lines, in hexadecimal."""
    return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogateescape")).hexdigest()
