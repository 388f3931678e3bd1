"""Any folder, however ugly: the whole corpus through the packer, in a folder and in a zip."""

import csv
import os
import struct
import tempfile
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gan.config import Config, DataOptions
from gan.data.pack import Pack, open_pack
from gan.data.sources import Zip
from gan.errors import UsageError
from tests.data import corpus

KINDS = {**corpus.GOOD, **corpus.NEARLY}


def pack_of(source: Path, cache: Path, **more: object) -> Pack:
    options = DataOptions(cache=cache, max_rejected=1.0, background="white", **more)  # type: ignore[arg-type]
    return open_pack(Config(data=str(source), resolution=corpus.SIDE, data_options=options))


def rejected(pack: Pack) -> dict[str, str]:
    return listed(pack.folder / "rejected.csv")


def listed(path: Path) -> dict[str, str]:
    with open(path, newline="", encoding="utf-8", errors="surrogateescape") as table:
        return dict(list(csv.reader(table))[1:])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("corpus")
    corpus.write_folder(root)
    return root


@pytest.fixture(scope="module")
def packed(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Pack:
    return pack_of(folder, tmp_path_factory.mktemp("cache"))


def good_files(folder: Path) -> list[Path]:
    """In the order of their names below the folder, as the pack must hold them."""
    tried = [path for part in ("good", "names") for path in (folder / part).iterdir()]
    files = [path for path in tried if path.is_file() and path.suffix not in (".txt", ".db") and path.name[:2] != "._"]
    first, again = folder / "again.png", folder / "names" / "a wrong suffix.jpg"
    files = [first if path == again else path for path in files]  # one file, and this its first name
    return sorted(files, key=lambda path: path.relative_to(folder).as_posix())


@pytest.mark.parametrize("name", KINDS)
def test_pixels(name: str, folder: Path, packed: Pack) -> None:
    place = [path.stem for path in good_files(folder)].index(name)
    difference = np.abs(packed.images[place].astype(int) - KINDS[name][1])
    assert difference.max() <= (6 if name in corpus.NEARLY else 1 if "16 bits" in name or "lpha" in name else 0)


def test_every_good_file_is_there_once_and_no_other(folder: Path, packed: Pack) -> None:
    assert len(packed.images) == len(good_files(folder)) == len(KINDS) + 5
    plain = corpus.GOOD["RGB 8 bits"][1]
    odd = [place for place, path in enumerate(good_files(folder)) if path.stem not in KINDS]
    assert len(odd) == 5
    assert all((packed.images[place] == plain).all() for place in odd)


def test_every_bad_file_is_listed_with_its_reason(packed: Pack) -> None:
    reasons = {Path(name).name: why for name, why in rejected(packed).items()}
    wanted = {**{name: words for name, (_, words) in corpus.BAD.items()}, **corpus.SPECIAL}
    assert reasons.keys() == wanted.keys()
    for name, words in wanted.items():
        assert reasons[name]
        assert words in reasons[name].lower() or words in reasons[name], name
        assert "0x" not in reasons[name], "an address in memory says nothing"


def test_a_summary_says_what_was_found(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pack = pack_of(folder, tmp_path)
    text = capsys.readouterr().out
    bad = len(corpus.BAD) + len(corpus.SPECIAL)
    for words in (
        f"{len(KINDS) + 5} images",
        f"{bad} left out",
        "16×16 to 16×16 pixels",
        "RGBA",
        "CMYK 2",
        "duplicates",
    ):
        assert words in text
    assert pack.index["rejected"] == bad
    assert sum(pack.index["modes"].values()) == len(pack.images)
    with Image.open(pack.folder / "reals.png") as sheet:
        assert sheet.width * sheet.height == 64 * corpus.SIDE**2


def test_too_many_bad_files_stop_with_a_summary(folder: Path, tmp_path: Path) -> None:
    options = DataOptions(cache=tmp_path)
    with pytest.raises(UsageError) as refusal:
        open_pack(Config(data=str(folder), resolution=16, data_options=options))
    bad = len(corpus.BAD) + len(corpus.SPECIAL)
    assert f"{bad} of {bad + len(KINDS) + 5} images cannot be read: 4 × 'is not an image" in str(refusal.value)
    table = Path(str(refusal.value).split("listed in ")[1].split("/rejected.csv")[0], "rejected.csv")
    assert len(listed(table)) == bad


def test_alpha_is_kept_for_four_channels(folder: Path, tmp_path: Path) -> None:
    options = DataOptions(cache=tmp_path, max_rejected=1.0)
    pack = open_pack(Config(data=str(folder), resolution=16, channels=4, data_options=options))
    names = [path.stem for path in good_files(folder)]
    assert pack.images[names.index("RGBA 8 bits")][0, 0].tolist() == [10, 100, 200, 51]
    for name in (
        "palette 2 bits tRNS",
        "RGB 8 bits tRNS",
        "grey 16 bits tRNS",
        "GIF with transparency",
        "GIF of a small frame",
    ):
        side = 0 if name.startswith("grey") else -1
        assert pack.images[names.index(name)][0, side, 3] == 0, name
    assert (pack.images[names.index("JPEG")][..., 3] == 255).all()


def test_the_number_of_workers_changes_nothing(folder: Path, packed: Pack, tmp_path: Path) -> None:
    assert [pack_of(folder, tmp_path / str(count), workers=count).content for count in (1, 3)] == [packed.content] * 2


def test_exact_duplicates_are_counted_and_can_be_dropped(folder: Path, packed: Pack, tmp_path: Path) -> None:
    different = {image.tobytes() for image in packed.images}
    assert packed.index["duplicates"] == len(packed.images) - len(different) > 0
    dropped = pack_of(folder, tmp_path, drop_duplicates=True)
    assert [image.tobytes() for image in dropped.images] == list(
        dict.fromkeys(image.tobytes() for image in packed.images)
    )
    assert (dropped.folder / "images.bin").stat().st_size == dropped.images.nbytes


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_what_may_not_be_read_is_listed() -> None:
    """As an ordinary user: root may read everything."""
    root = Path(tempfile.mkdtemp(dir="/tmp"))
    os.chmod(root, 0o777)
    for name in ("a.png", "shut.png", "shut/b.png"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(corpus.GOOD["RGB 8 bits"][0])
    for name in ("shut.png", "shut"):
        os.chmod(root / name, 0)
    me = os.geteuid()
    try:
        os.seteuid(65534 if me == 0 else me)
        reasons = rejected(pack_of(root, root / "cache"))
    finally:
        os.seteuid(me)
    assert {Path(name).name: why for name, why in reasons.items()} == dict.fromkeys(
        ("shut.png", "shut"), "Permission denied"
    )


def write_zip(path: Path) -> None:
    """The corpus' files, and what only a zip can do."""
    plain = corpus.GOOD["RGB 8 bits"][0]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, (file, _) in KINDS.items():
            archive.writestr(f"good/{name}.png", file)
        for name, (file, _) in corpus.BAD.items():
            archive.writestr(f"bad/{name}", file)
        for name in (
            "../up.png",
            "deep/../../up2.png",
            "/absolute.png",
            "secret.png",
            "damaged.png",
            "__MACOSX/._x.png",
        ):
            archive.writestr(name, plain)
        archive.writestr("swelling.png", bytes(20 << 20))
        link = zipfile.ZipInfo("link.png")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
        archive.writestr("odd.png", plain, zipfile.ZIP_BZIP2)
        archive.writestr("photo.jpg?w=300", plain)
        damaged = archive.getinfo("damaged.png").header_offset
    content = bytearray(path.read_bytes())
    content[damaged + 60] ^= 0xFF
    for header in (b"PK\x03\x04", b"PK\x01\x02"):  # set "encrypted" in both places that say so
        start = content.find(b"secret.png") if header[2] == 3 else content.rfind(b"secret.png")
        content[content.rfind(header, 0, start) + (6 if header[2] == 3 else 8)] |= 1
    path.write_bytes(content)


def test_a_zip_with_every_fault(tmp_path: Path) -> None:
    write_zip(tmp_path / "set.zip")
    pack = pack_of(tmp_path / "set.zip", tmp_path / "cache")
    assert len(pack.images) == len(KINDS)
    for row, name in zip(pack.images, sorted(f"good/{name}.png" for name in KINDS), strict=True):
        kind = Path(name).stem
        assert np.abs(row.astype(int) - KINDS[kind][1]).max() <= (6 if kind in corpus.NEARLY else 1), name
    reasons = {
        name.removeprefix(f"{tmp_path}/set.zip:").removeprefix("bad/"): why for name, why in rejected(pack).items()
    }
    wanted = {
        **{name: words for name, (_, words) in corpus.BAD.items()},
        **dict.fromkeys(("../up.png", "deep/../../up2.png", "/absolute.png"), "leads out of the archive"),
        **{
            "secret.png": "is encrypted",
            "damaged.png": "",
            "swelling.png": "as no image does",
            "link.png": "not an image",
            "odd.png": "another method than deflate",
        },
    }
    assert reasons.keys() == wanted.keys()
    for name, words in wanted.items():
        assert words in reasons[name].lower() or words in reasons[name], name


def test_a_file_that_holds_more_than_it_claims_is_not_read_on(tmp_path: Path) -> None:
    """200 MB of zeros, said to be 1,000 bytes."""
    with zipfile.ZipFile(tmp_path / "liar.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("liar.png", bytes(200 << 20))
    content = (tmp_path / "liar.zip").read_bytes().replace(struct.pack("<I", 200 << 20), struct.pack("<I", 1000))
    (tmp_path / "liar.zip").write_bytes(content)
    source = Zip(tmp_path / "liar.zip")
    tracemalloc.start()
    with pytest.raises(zipfile.BadZipFile, match="Bad CRC-32"):
        source.open(0)
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


@pytest.mark.parametrize(("place", "value"), [(6, 99), (8, 0xFF)], ids=["of a later version", "of an impossible name"])
def test_a_zip_with_an_odd_directory_is_refused(place: int, value: int, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "odd.zip", "w") as archive:
        archive.writestr("\xff.png" if place == 8 else "a.png", b"x")
    content = bytearray((tmp_path / "odd.zip").read_bytes().replace("ÿ".encode(), b"\xff\xff"))
    if place == 6:
        content[content.rfind(b"PK\x01\x02") + 6] = value
    (tmp_path / "odd.zip").write_bytes(content)
    with pytest.raises(UsageError, match=r"cannot open .*odd.zip as a zip file"):
        pack_of(tmp_path / "odd.zip", tmp_path)


def test_a_zip_that_swells_as_a_whole_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(40):
            archive.writestr(f"{number}.png", bytes(15 << 20))
    with pytest.raises(UsageError, match="would unpack to 629,145,600, as no images do"):
        pack_of(tmp_path / "bomb.zip", tmp_path)


@pytest.mark.parametrize("keep", [0, 100, -100])
def test_a_cut_zip_is_refused(keep: int, tmp_path: Path) -> None:
    write_zip(tmp_path / "whole.zip")
    (tmp_path / "cut.zip").write_bytes((tmp_path / "whole.zip").read_bytes()[:keep])
    with pytest.raises(UsageError, match="cut.zip is empty" if not keep else "cannot open .*cut.zip as a zip file"):
        pack_of(tmp_path / "cut.zip", tmp_path)
