import errno
import gzip
import os
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gan.data.sources import Folder, Zip, open_source, unfit_member
from gan.errors import RunError, UsageError


def picture(path: Path, value: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4), (value, value, value)).save(path, "png")
    return path


def test_a_folder_gives_each_image_once_in_the_order_of_names(tmp_path: Path) -> None:
    for name in ("b.png", "a.PNG", "sub/c.jpg", "sub/deep/ä.webp", ".hidden/x.png", "._b.png", "__MACOSX/y.png"):
        picture(tmp_path / name)
    (tmp_path / "notes.txt").write_text("not an image")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "dangling.png").symlink_to(tmp_path / "nowhere.png")
    (tmp_path / "sub" / "loop").symlink_to(tmp_path)
    os.mkfifo(tmp_path / "pipe.png")
    source = Folder(tmp_path)
    names = [Path(source.label(index)).relative_to(tmp_path).as_posix() for index in range(len(source))]
    assert names == ["a.PNG", "b.png", "sub/c.jpg", "sub/deep/ä.webp"]


def test_a_zip_is_read_without_unpacking(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        for value, name in enumerate(("set/2.png", "set/1.png", "__MACOSX/set/._1.png", "set/readme.txt")):
            archive.write(picture(tmp_path / "one", value), name)
    source = Zip(tmp_path / "set.zip")
    with zipfile.ZipFile(tmp_path / "set.zip", "a") as archive:
        archive.mkdir("folder.png") if hasattr(archive, "mkdir") else archive.writestr("folder.png/", b"")
    assert len(Zip(tmp_path / "set.zip")) == 2
    assert [source.label(index).split(":")[-1] for index in range(len(source))] == ["set/1.png", "set/2.png"]
    assert [source.open(index).getpixel((0, 0)) for index in range(2)] == [(1, 1, 1), (0, 0, 0)]
    assert sorted(os.listdir(tmp_path)) == ["one", "set.zip"]


@pytest.mark.parametrize(
    ("packed", "unpacked", "fits"),
    [
        (512 << 20, 512 << 20, True),
        (512 << 20, (512 << 20) + 1, False),
        (1, 16 << 20, True),
        (1, (16 << 20) + 1, False),
        (100_000, 20_000_000, True),
        (100_000, 20_000_001, False),
    ],
)
def test_what_a_file_in_a_zip_may_unpack_to(packed: int, unpacked: int, fits: bool) -> None:
    """512 MiB; above 16 MiB also 200 times what it is packed."""
    member = zipfile.ZipInfo("a.png")
    member.compress_size, member.file_size = packed, unpacked
    assert unfit_member(member) == (
        "" if fits else f"has {packed:,} bytes but would unpack to {unpacked:,}, as no image does"
    )


def test_fingerprints_follow_the_files(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    before = Folder(tmp_path).fingerprint()
    assert Folder(tmp_path).fingerprint() == before
    picture(tmp_path / "b.png")
    added = Folder(tmp_path).fingerprint()
    os.utime(tmp_path / "b.png", (1, 1))
    assert len({before, added, Folder(tmp_path).fingerprint()}) == 3


def test_a_zips_fingerprint_follows_what_is_in_it(tmp_path: Path) -> None:
    """The content of each file, and those that are left out too."""
    found = set()
    for number, files in enumerate(({"a.png": b"1"}, {"a.png": b"2"}, {"a.png": b"1", "b.png": b""})):
        with zipfile.ZipFile(tmp_path / f"{number}.zip", "w") as archive:
            for name, content in files.items():
                archive.writestr(name, content)
        found.add(Zip(tmp_path / f"{number}.zip").fingerprint())
    assert len(found) == 3


@pytest.mark.parametrize(
    "data",
    [
        "nowhere",
        "n" * 300,
        "",
        "sprits",
        "empty",
        "text.txt",
        "torchvision:MNIS",
        "torchvision:EMNIST",
        "sprites:7",
        "~nobody_of_that_name/images",
        "pipe.zip",
    ],
)
def test_what_is_no_source_is_refused_with_advice(data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.txt").write_text("no zip")
    os.mkfifo(tmp_path / "pipe.zip")
    with pytest.raises(UsageError) as refusal:
        open_source(data, 16, tmp_path / "cache")
    sentence = str(refusal.value)
    assert data.split(":")[-1] in sentence
    assert {"sprits": "did you mean sprites?", "torchvision:MNIS": "did you mean MNIST?"}.get(data, ".") in sentence


def test_a_folder_with_the_name_of_a_source_is_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    picture(tmp_path / "sprites" / "a.png")
    assert len(open_source("sprites", 16, tmp_path)) == 10_000
    assert "for those that are here under that name give ./sprites." in capsys.readouterr().out
    assert len(open_source("./sprites", 16, tmp_path)) == 1
    assert not capsys.readouterr().out


@pytest.mark.parametrize("name", ["stat", "scandir"])
def test_what_a_disk_does_not_list_is_not_left_out(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run would train on fewer images, and not go on when they are there again."""
    ill, act = picture(tmp_path / "below" / "a.png"), getattr(os, name)

    def refuse(path: object, *more: object, **named: object) -> object:
        if str(path) == str(ill if name == "stat" else ill.parent):
            raise OSError(errno.EIO, "Input/output error", str(path))
        return act(path, *more, **named)

    monkeypatch.setattr(os, name, refuse)
    with pytest.raises(RunError, match=f"could not read {ill.parent}.*: Input/output error"):
        Folder(tmp_path)


def test_names_in_a_zip_may_begin_with_the_folder_it_was_made_in(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name in ("./set/a.png", "./.hidden/b.png"):
            archive.writestr(zipfile.ZipInfo(name), (tmp_path / "a.png").read_bytes())
    source = Zip(tmp_path / "a.zip")
    assert [source.label(index) for index in range(len(source))] == [f"{tmp_path}/a.zip:./set/a.png"]


def test_torchvision_reads_its_own_files(tmp_path: Path) -> None:
    """The real MNIST class on ten digits in MNIST's own file format."""
    raw = tmp_path / "torchvision" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    pixels = np.arange(10, dtype=np.uint8)[:, None, None] * np.ones((1, 28, 28), np.uint8)
    for split in ("train", "t10k"):
        (raw / f"{split}-images-idx3-ubyte").write_bytes(struct.pack(">IIII", 2051, 10, 28, 28) + pixels.tobytes())
        (raw / f"{split}-labels-idx1-ubyte").write_bytes(struct.pack(">II", 2049, 10) + bytes(10))
        (raw / f"{split}-images-idx3-ubyte.gz").write_bytes(gzip.compress(b""))
    source = open_source("torchvision:MNIST", 16, tmp_path)
    assert len(source) == 10
    assert source.open(7).getpixel((0, 0)) == 7


def test_a_download_without_network_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with pytest.raises(RunError, match=r"could not get torchvision:CIFAR10: .*Check the network"):
        open_source("torchvision:CIFAR10", 16, tmp_path)
