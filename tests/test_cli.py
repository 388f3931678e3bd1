"""What is printed before anything is trained: recipes, help and the words that a shell completes."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from gan.cli import train, understood
from gan.config import FLAGS, parse
from tests.conftest import ROOT, gan
from tests.telemetry.runs import entries, write_run


def test_help_fits_80_columns_and_says_what_holds_by_default(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        train(["--recipe", "space", "--help"])
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 80
    entries = re.split(r"\n[│ ] --(?=\w)", text)[1:]  # without a terminal, the frames are blank
    assert [entry.split()[0] for entry in entries] == FLAGS
    for entry in entries:
        words = " ".join(entry.replace("│", " ").split())
        assert re.search(r"[.…] \(default: .+\)", words), words
        assert "None" not in words
    assert "(default: 128)" in next(entry for entry in entries if entry.startswith("model.z-dim")), "space has its own"


def commands_document() -> list[str]:
    """The shell's blocks in docs/commands.md."""
    return re.findall(r"```bash\n(.*?)```", (ROOT / "docs" / "commands.md").read_text(), re.DOTALL)


def complete(script: Path, *words: str) -> list[str]:
    """What bash offers for the last of the words, by the script."""
    ask = f"""
        . {script}
        COMP_WORDS=({shlex.join(words)}) COMP_CWORD={len(words) - 1}
        complete_gan
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    result = subprocess.run(["bash", "-c", ask], capture_output=True, text=True, check=True)
    assert not result.stderr
    return result.stdout.split()


@pytest.mark.skipif(sys.platform != "linux", reason="a bash of this century")
def test_completion_as_the_document_says(tmp_path: Path) -> None:
    """With its own words; ~ is a folder of the test, and `gan` and `python` are called here."""
    once, profile = (block.replace("~", str(tmp_path)) for block in commands_document()[2:])
    for line in once.splitlines():
        program, *words = shlex.split(line.replace("python train.py", "train.py"))
        with pytest.raises(SystemExit) as end:
            gan(*words) if program == "gan" else train(words)
        assert not end.value.code
    (script := tmp_path / "bashrc").write_text(profile)
    assert complete(script, "accelerate", "launch", "train.py", "--model.norm-") == [
        *("--model.norm-g", "--model.norm-d", "--model.norm-first", "--model.norm-momentum")
    ]
    assert complete(script, "python", "a b/train.py", "--objective.loss", "h") == ["hinge"]
    assert complete(script, "train.py", "--recipe", "pokemon-n") == ["pokemon-narrow"]
    assert complete(script, "gan", "doctor", "--recipe", "quick") == ["quickstart"]
    assert complete(script, "train.py", "--dry-run", "") == ["True", "False"]
    assert complete(script, "gan", "do") == ["doctor"]
    assert complete(script, "python", "-m", "gan", "sample", "RUN", "--weights", "") == ["ema", "raw"]
    assert complete(script, "gan", "sample", "ru") == [], "bash goes on with names of files"
    assert complete(script, "python", "other.py", "--mo") == []


def test_gan_alone_says_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        gan()
    assert not end.value.code
    assert "evaluate" in capsys.readouterr().out


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a disk that is full is Linux'")
def test_what_cannot_be_printed_is_given_up(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", entries(3))
    for words in (["runs", run.parent], ["plot", run, "--out", tmp_path / "a.png"], ["report", run]):
        command = [sys.executable, "-m", "gan", *map(str, words)]
        with open("/dev/full", "w") as full:
            result = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
        assert result.returncode == 0
        assert not re.search("Traceback|Exception ignored", result.stderr)


def test_a_mistyped_command_is_told_what_was_meant(capsys: pytest.CaptureFixture[str]) -> None:
    for word, told in (("smaple", "; did you mean sample?"), ("whree", "; did you mean where?"), ("x", ".")):
        assert gan(word, "RUN") == 2
        assert capsys.readouterr().err == f"error: there is no gan {word}{told} See gan --help.\n"


def test_the_commands_of_the_document_are_understood() -> None:
    """Those of its first two blocks; what they do has tests of its own."""
    for line in "".join(commands_document()[:2]).splitlines():
        program, *words = shlex.split(line.replace("python train.py", "train.py"))
        if "list" in words:
            assert train(words) == 0
        elif program == "gan":
            understood(words)
        else:
            assert parse(words).dry_run


def test_a_command_does_not_end_by_looking_through_all_objects_for_rubbish() -> None:
    """What is registered first is called last."""
    code = "import atexit, gc; atexit.register(lambda: print(gc.get_freeze_count() > 0)); import gan.cli"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "True\n"
