"""Small files, written whole or not at all."""

from pathlib import Path

import pytest

from gan.files import attempt, read_json, replace_file


def test_a_file_is_replaced_made_and_removed_and_nothing_else_is_left(tmp_path: Path) -> None:
    place = tmp_path / "notes.txt"
    for content in (b"first", b"second"):
        replace_file(place, content)
        assert place.read_bytes() == content
    assert [path.name for path in place.parent.iterdir()] == ["notes.txt"]
    replace_file(place, None)
    replace_file(place, None)
    assert not place.exists()


def test_what_cannot_be_replaced_stays_as_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = tmp_path / "folder"
    (place / "inside").mkdir(parents=True)
    attempt(lambda: replace_file(place, b"a file where a folder is"), "the notes")
    assert "the notes could not be written (Is a directory); training goes on." in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


@pytest.mark.parametrize("content", ["", "{", "[" * 100_000, "\ud800"])
def test_a_damaged_file_reads_as_nothing(content: str, tmp_path: Path) -> None:
    (tmp_path / "facts.json").write_text(content, errors="surrogatepass")
    assert read_json(tmp_path / "facts.json") == {}


def test_a_file_that_is_there_is_read(tmp_path: Path) -> None:
    replace_file(tmp_path / "facts.json", '{"where": "Zürich"}'.encode())
    assert read_json(tmp_path / "facts.json") == {"where": "Zürich"}
    assert read_json(tmp_path / "nowhere.json") == {}
