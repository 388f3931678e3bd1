"""Settings that change between a stop and a resume."""

from pathlib import Path

import pytest

from gan.config import read_recipe
from tests.conftest import TINY, checkpoint_of, run_script, train


def test_changed_settings_are_named_and_need_a_word(images: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    words = ("--data", images, "--out", run, "--log-every", 2)
    train(*words, "--iterations", 2)
    train(*words, "--iterations", 3, "--log-every", 1, "--checkpoint.every", 1, "--track.project", "other")
    changed = ("--optim-g.lr", 1e-3, "--objective.loss", "hinge")
    refused = run_script(*TINY, *words, "--iterations", 5, *changed)
    assert refused.returncode == 2
    for part in ("--objective.loss non-saturating", "--optim-g.lr", "--resume-changed True"):
        assert part in refused.stderr
    assert checkpoint_of(run, 3).state["trajectory"]["objective.loss"] == "non-saturating"
    said = train(*words, "--iterations", 5, *changed, "--resume-changed", True)
    assert "Going on although this has changed: objective.loss, optim-g.lr." in said
    assert "Going on from" in said
    assert not read_recipe(str(run / "config.yaml")).resume_changed, (
        "a licence for once, not for whoever repeats the run"
    )
    train(*words, "--iterations", 6, *changed)  # the new settings are the run's own now
    assert checkpoint_of(run, 6).state["trajectory"]["objective.loss"] == "hinge"
    assert read_recipe(str(run / "config.yaml")).objective.loss == "hinge"


@pytest.mark.parametrize("change", [("--model.width", 8), ("--optim-d.method", "adamw"), ("--dtype", "float64")])
def test_what_makes_the_checkpoint_another_cannot_change(
    change: tuple[str, object], images: Path, tmp_path: Path
) -> None:
    words = ("--data", images, "--out", tmp_path / "run", "--resume-changed", True)
    train(*words, "--iterations", 1)
    refused = run_script(*TINY, *words, "--iterations", 2, *change)
    assert refused.returncode == 2
    assert f"was made with {change[0]} " in refused.stderr
