import json
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from gan.config import DataOptions
from gan.data.pack import open_pack, write_pack
from gan.data.pixels import to_pixels
from gan.errors import UsageError
from tests.data.packs import config_for


def test_a_pack_holds_every_image_in_order(images: Path, tmp_path: Path) -> None:
    pack = open_pack(config_for(images, tmp_path))
    assert pack.images.shape == (20, 16, 16, 3)
    for row, path in zip(pack.images, sorted(images.rglob("*.png"), key=str), strict=True):
        assert (row == to_pixels(Image.open(path), 16, 3, "crop", "white")).all()


def test_a_pack_is_made_once_and_again_when_something_changed(images: Path, tmp_path: Path) -> None:
    config = config_for(images, tmp_path)
    first = open_pack(config)
    written = (first.folder / "images.bin").stat().st_mtime_ns
    assert (open_pack(config).folder / "images.bin").stat().st_mtime_ns == written
    squashed = open_pack(config_for(images, tmp_path, fit="squash"))
    assert squashed.folder != first.folder
    assert squashed.content != first.content
    assert open_pack(replace(config, channels=1)).images.shape == (20, 16, 16, 1)


def test_other_images_under_the_same_names_are_other_images(tmp_path: Path) -> None:
    """The same sizes and times too, as unpacking an archive leaves them."""
    packs = []
    for name, colour in (("red", (255, 0, 0)), ("blue", (0, 0, 255))):
        (tmp_path / name).mkdir()
        Image.new("RGB", (16, 16), colour).save(tmp_path / name / "0.bmp")
        os.utime(tmp_path / name / "0.bmp", (0, 0))
        packs.append(open_pack(config_for(tmp_path / name, tmp_path)))
    assert [pack.images[0, 0, 0].tolist() for pack in packs] == [[255, 0, 0], [0, 0, 255]]
    moved = tmp_path / "red" / "moved.bmp"
    Image.new("RGB", (16, 16), (0, 255, 0)).save(moved)
    os.utime(moved, (0, 0))
    moved.replace(tmp_path / "red" / "0.bmp")
    assert open_pack(config_for(tmp_path / "red", tmp_path)).images[0, 0, 0].tolist() == [0, 255, 0]


def test_what_decides_the_pixels_makes_another_pack(images: Path, tmp_path: Path) -> None:
    changed: list[dict[str, object]] = [{"background": "black"}, {"max_megapixels": 1.5}, {"drop_duplicates": True}]
    packs = [open_pack(config_for(images, tmp_path, **options)).folder for options in ({}, *changed)]
    assert len(set(packs)) == 4
    assert open_pack(config_for(images, tmp_path, max_rejected=0.5)).folder == packs[0]


def test_a_pack_among_the_images_is_not_one_of_them(images: Path, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    shutil.copytree(images, folder)
    for _ in range(2):
        write_pack(str(folder), folder / "pack", resolution=16)
        assert len(open_pack(config_for(folder, folder / "cache")).images) == 20


def test_gan_pack_touches_nothing_but_its_pack(images: Path, tmp_path: Path) -> None:
    for neighbour in ("faces.unfinished", "faces.rejected", "faces"):
        (tmp_path / neighbour).mkdir()
    (tmp_path / "faces.rejected" / "labels.txt").write_text("mine")
    write_pack(str(images), tmp_path / "faces", resolution=16)
    assert (tmp_path / "faces.rejected" / "labels.txt").read_text() == "mine"
    assert (tmp_path / "faces.unfinished").exists()
    (tmp_path / "faces" / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"is not a pack alone \(notes.txt\)"):
        write_pack("sprites", tmp_path / "faces", resolution=16)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    write_pack(str(images), tmp_path / "link", resolution=16)
    assert (tmp_path / "elsewhere" / "index.json").exists()


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 16
    path.write_bytes(content)


@pytest.mark.parametrize(
    "damage", ["truncated", "no index", "broken index", "wrong shape", "one bit", "other images", "unfit"]
)
def test_a_damaged_pack_is_made_again(damage: str, images: Path, tmp_path: Path) -> None:
    config = config_for(images, tmp_path)
    pack = open_pack(config)
    pack = replace(pack, index=json.loads((index := pack.folder / "index.json").read_text()))
    pixels = pack.images.copy()
    if damage == "truncated":
        (pack.folder / "images.bin").write_bytes(bytes(100))
    elif damage == "no index":
        index.unlink()
    elif damage == "broken index":
        index.write_text("{")
    elif damage == "one bit":
        flip_a_bit(pack.folder / "images.bin")
    elif damage == "other images":
        index.write_text(json.dumps({**pack.index, "fingerprint": "0" * 64}))
    elif damage == "unfit":
        index.write_text(json.dumps({**pack.index, "resolution": 32}))
    else:
        index.write_text(json.dumps({**pack.index, "shape": [19, 16, 16, 3]}))
    again = open_pack(config)
    index_now = json.loads(json.dumps(again.index))  # as the file has it: lists instead of tuples
    assert index_now == {**pack.index, "seconds": again.index["seconds"]}
    assert (again.images == pixels).all()


def test_nothing_readable_is_refused_however_much_is_allowed(tmp_path: Path) -> None:
    (tmp_path / "junk").mkdir()
    (tmp_path / "junk" / "a.png").write_bytes(b"junk")
    with pytest.raises(UsageError, match="1 of 1 images cannot be read"):
        open_pack(config_for(tmp_path / "junk", tmp_path, max_rejected=1.0))


def test_a_source_with_nothing_readable_is_not_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.png").write_bytes(b"junk")
    with pytest.raises(UsageError):
        open_pack(config_for(tmp_path, tmp_path / "cache"))
    assert re.fullmatch(r"Packed no image of .*: 1 left out \(see .*/rejected\.csv\)\.\n", capsys.readouterr().out)


@pytest.mark.parametrize(("place", "why"), [("n" * 300, "File name too long"), ("file/pack", "File exists")])
def test_a_place_that_cannot_be_written_is_a_sentence(place: str, why: str, images: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=rf"cannot write the pack .*: {why}\."):
        write_pack(str(images), tmp_path / place, resolution=16, data_options=DataOptions(cache=tmp_path))


def test_a_pack_that_was_cut_short_is_made_again(images: Path, tmp_path: Path) -> None:
    """What a killed process leaves behind: half a file under the unfinished name, and a lock file nobody holds."""
    config = config_for(images, tmp_path)
    whole = open_pack(config)
    (whole.folder / "images.bin").rename(tmp_path / "images.bin")
    whole.folder.rename(whole.folder.with_name(f".unfinished-pack-{whole.folder.name}-a1b2c3d4"))
    assert open_pack(config).content == whole.content
    assert not list((tmp_path / "packs").glob(".unfinished*"))


def test_a_cache_that_cannot_be_written_serves_what_it_holds(images: Path, tmp_path: Path) -> None:
    """As on a cluster, where one packs for all."""
    config = config_for(images, tmp_path)
    pack = open_pack(config)
    before = sorted(path.name for path in (tmp_path / "packs").iterdir())
    pack.folder.with_name(f".{pack.folder.name}.lock").unlink(
        missing_ok=True
    )  # nothing is locked or written for a pack that is there
    assert open_pack(config).content == pack.content
    assert sorted(path.name for path in (tmp_path / "packs").iterdir()) == [
        n for n in before if not n.endswith(".lock")
    ]


def test_gan_pack_makes_a_pack_that_data_takes(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "my pack"
    write_pack(str(images), out, resolution=16)
    assert "20 images in" in capsys.readouterr().out
    automatic = open_pack(config_for(images, tmp_path))
    given = open_pack(config_for(out, tmp_path))
    assert given.content == automatic.content
    assert sorted(path.name for path in out.iterdir()) == ["images.bin", "index.json", "reals.png", "rejected.csv"]
    with pytest.raises(UsageError, match=r"was packed with --resolution 16, but this run has 32"):
        open_pack(replace(config_for(out, tmp_path), resolution=32))
    with pytest.raises(UsageError, match="is a pack already"):
        write_pack(str(out), tmp_path / "again")
    flip_a_bit(out / "images.bin")
    with pytest.raises(UsageError, match="is damaged or of another version; make it again with gan pack"):
        open_pack(config_for(out, tmp_path))
    write_pack(str(images), out, resolution=16)
    assert open_pack(config_for(out, tmp_path)).content == automatic.content
    with pytest.raises(UsageError, match="is not a pack alone"):
        write_pack(str(images), images)
