"""The model card."""

from dataclasses import replace
from pathlib import Path

from gan.card import card
from gan.trained import read_run
from tests.conftest import checkpoint_of, untrained_run


def test_the_card_gives_a_score_of_training_to_the_average_alone(tmp_path: Path) -> None:
    run = untrained_run(tmp_path / "run")
    score = {"score": {"metric": "swd", "value": 12.5, "better": "lower"}}
    found = checkpoint_of(run, 1)
    scored = replace(found, state={**found.state, **score})
    assert "during training, swd (lower is better): 12.5" in card(run, read_run(run), scored, "ema")
    assert "during training" not in card(run, read_run(run), scored, "raw")


def test_the_card_says_whose_weights_it_began_with(tmp_path: Path) -> None:
    """By name: the place is this machine's business."""
    alone = untrained_run(tmp_path / "alone")
    assert "begin with" not in card(alone, read_run(alone), checkpoint_of(alone, 1), "ema")
    run = untrained_run(tmp_path / "run", init_from=tmp_path / "faces")
    assert "weights to begin with: those of faces (--transfer.players both)\n" in card(
        run, read_run(run), checkpoint_of(run, 1), "ema")  # fmt: skip
