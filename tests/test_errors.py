"""Faults, as the user reads them."""

import re
from typing import Literal

import pytest
import tyro

from gan.cli import guarded
from gan.errors import ProcessError, RunError, UsageError, UserFault, plain_refusals, reason, suggestion, tell


def test_a_near_word_is_suggested_and_a_far_one_is_not() -> None:
    assert suggestion("hnge", ["wasserstein", "hinge"]) == "; did you mean hinge?"
    assert suggestion("x", ["wasserstein", "hinge"]) == suggestion("x", []) == "."


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--number", "five"], r"--number.*'five' is not a whole number"),
        (["--number", "1", "--share", "much"], r"--share.*'much' is not a number"),
        (["--number", "1", "--colour", "rde"], r"'rde' is not one of red, green; did you mean red\?$"),
        (["--number", "1", "--nubmer", "5"], r"--nubmer"),
        ([], r"--number"),
    ],
)
def test_what_a_parser_refuses_is_one_sentence(
    words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def command(number: int, share: float = 0.5, colour: Literal["red", "green"] = "red") -> None: ...

    with pytest.raises(UsageError, match=sentence) as refused, plain_refusals():
        tyro.cli(command, args=words)
    assert not re.search(r"[\n│╭]", str(refused.value))
    assert not capsys.readouterr().err


def test_help_is_no_refusal(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end, plain_refusals():
        tyro.cli(lambda: None, args=["--help"])
    assert not end.value.code
    assert "usage" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("fault", "agreed", "rank", "status", "told"),
    [
        (UsageError, False, {"RANK": "1", "LOCAL_RANK": "0"}, 2, True),
        (UsageError, True, {"RANK": "1", "LOCAL_RANK": "0", "GROUP_RANK": "1"}, 2, False),
        (UsageError, True, {"RANK": "1", "LOCAL_RANK": "1"}, 2, False),
        (UsageError, False, {"RANK": "1", "LOCAL_RANK": "1"}, 2, True),
        (ProcessError, True, {"RANK": "1", "LOCAL_RANK": "1"}, 1, True),
        (RunError, True, {"RANK": "0", "LOCAL_RANK": "0"}, 1, True),
    ],
)
def test_who_says_it_and_how_the_command_ends(
    fault: type[UserFault], agreed: bool, rank: dict[str, str], status: int, told: bool,
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Once for all processes where they agree, else once on each machine; what one process alone has met, it says, in
    the end also where it left that to another, which has not ended the run."""
    monkeypatch.setattr("gan.cli.PATIENCE", 0.01)
    for name, value in rank.items():
        monkeypatch.setenv(name, value)

    def command() -> None:
        raise fault("the disk\n is full.", agreed)

    assert guarded(command) == status
    assert capsys.readouterr().err == ("error: the disk is full.\n" if told else "")


def test_a_fault_is_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    """A run does it at once, and the command would at its end."""
    fault = RunError("the disk is full.")

    def command() -> None:
        tell(fault)
        raise fault

    assert guarded(command) == 1
    assert capsys.readouterr().err == "error: the disk is full.\n"


def test_the_reason_is_never_empty() -> None:
    errors = OSError(28, "No space left on device"), OSError("its own\n words"), OSError(), ValueError("three")
    assert [reason(error) for error in errors] == ["No space left on device", "its own words", "OSError", "three"]
