"""Weights of one run in another: exactly the tensors that are said to be taken over, by the real script."""

from pathlib import Path

import pytest

from gan.checkpoint import Checkpoint
from tests.conftest import checkpoint_of, run_script, train, with_processes

SHORT = ("--model.width", 8, "--batch-size", 4, "--resolution", 32)


@pytest.fixture(scope="module")
def source(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("source")
    train("--data", images, "--out", run, *SHORT, "--iterations", 3, "--optim-g.lr", "1e-2", "--optim-d.lr", "1e-2")
    return run


def started(source: Path, out: Path, *words: object, launcher: tuple[str, ...] = ()) -> tuple[Checkpoint, str]:
    """A run from `source`'s weights after an iteration that changes none, and what it printed."""
    still = ("--iterations", 1, "--optim-g.lr", 0, "--optim-d.lr", 0, "--ema.decay", 0)
    printed = train("--init-from", source, "--out", out, *SHORT, *still, *words, launcher=launcher)
    return checkpoint_of(out, 1), printed


def same(one: Checkpoint, group: str, two: Checkpoint, other: str) -> set[str]:
    """Names of the weights (no statistics of BatchNorm: an iteration changes them) that are equal."""
    return {
        name for name, value in one.tensors[group].items()
        if name.endswith(("weight", "bias")) and name in two.tensors[other] and value.equal(two.tensors[other][name])
    }  # fmt: skip


def weights(found: Checkpoint, group: str) -> set[str]:
    return {name for name in found.tensors[group] if name.endswith(("weight", "bias"))}


def test_everything_fits_a_run_of_the_same_shape(images: Path, source: Path, tmp_path: Path) -> None:
    before = checkpoint_of(source, 3)
    after, printed = started(source, tmp_path / "run", "--data", images)
    assert same(after, "generator", before, "generator_ema") == weights(after, "generator")
    assert same(after, "generator_ema", before, "generator_ema") == weights(after, "generator")
    assert same(after, "discriminator", before, "discriminator") == weights(after, "discriminator")
    assert "fresh" not in printed
    raw, _ = started(source, tmp_path / "raw", "--data", images, "--transfer.weights", "raw")
    assert same(raw, "generator", before, "generator") == weights(raw, "generator")
    assert not same(raw, "generator", before, "generator_ema") >= weights(raw, "generator")


@pytest.mark.parametrize(("players", "taken"), [("g", "generator"), ("d", "discriminator")])
def test_one_player_alone(players: str, taken: str, images: Path, source: Path, tmp_path: Path) -> None:
    before = checkpoint_of(source, 3)
    after, _ = started(source, tmp_path / "run", "--data", images, "--transfer.players", players)
    for group in ("generator", "discriminator"):
        equal = same(after, group, before, "generator_ema" if group == "generator" else group)
        assert equal == (weights(after, group) if group == taken else {name for name in equal if name.endswith("bias")})


@pytest.mark.parametrize("words", [("--channels", 1), ("--resolution", 64), ("--resolution", 16)])
def test_another_shape_takes_what_fits(words: tuple[object, ...], images: Path, source: Path, tmp_path: Path) -> None:
    """Blocks by the resolution they work at; G's last and D's first layer begin anew."""
    before = checkpoint_of(source, 3)
    after, printed = started(source, tmp_path / "run", "--data", images, *words)
    blocks = {"--channels": ({4, 8, 16}, {4, 8}), "64": ({4, 8, 16}, {4, 8}), "16": ({4, 8}, {4})}
    in_g, in_d = blocks.get(str(words[0]), blocks.get(str(words[1]), (set(), set())))
    expected_g = {f"blocks.{size}.{part}" for size in in_g for part in ("conv.weight", "norm.weight")}
    expected_d = {f"blocks.{size}.{part}" for size in in_d for part in ("conv.weight", "norm.weight")} | {"head.weight"}
    found_g = {n for n in same(after, "generator", before, "generator_ema") if not n.endswith("bias")}
    found_d = {n for n in same(after, "discriminator", before, "discriminator") if not n.endswith("bias")}
    assert (found_g, found_d) == (expected_g, expected_d)
    assert "G fresh" in printed
    assert "to_image (1)" in printed
    assert "from_image (1)" in printed


def test_two_processes_take_over_the_same(images: Path, source: Path, tmp_path: Path) -> None:
    one, _ = started(source, tmp_path / "one", "--data", images)
    two, printed = started(source, tmp_path / "two", "--data", images, launcher=with_processes(2))
    assert same(two, "generator", one, "generator") == weights(one, "generator")
    assert printed.count("Weights from") == 1


def test_frozen_blocks_of_d_stay_and_the_rest_learns(images: Path, source: Path, tmp_path: Path) -> None:
    words = ("--data", images, "--init-from", source, *SHORT, "--transfer.freeze-d", 2, "--out", tmp_path / "run")
    train(*words, "--iterations", 2)
    train(*words, "--iterations", 4)  # goes on
    before, after = checkpoint_of(source, 3), checkpoint_of(tmp_path / "run", 4)
    frozen = {"from_image.conv.weight", "blocks.8.conv.weight", "blocks.8.norm.weight", "blocks.8.norm.bias"}
    assert same(after, "discriminator", before, "discriminator") == frozen


def test_a_run_that_goes_on_does_not_need_the_source_any_more(images: Path, tmp_path: Path) -> None:
    words = ("--data", images, "--out", tmp_path / "run")
    train("--data", images, "--out", tmp_path / "source", "--iterations", 1)
    train(*words, "--init-from", tmp_path / "source", "--iterations", 1)
    (tmp_path / "source").rename(tmp_path / "gone")
    assert "Going on" in train(*words, "--init-from", tmp_path / "source", "--iterations", 2)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--init-from", "nowhere"), "--init-from nowhere: there is no checkpoint; give a run folder or a checkpoint"),
        (("--model.width", 12, "--model.z-dim", 9), "nothing of its generator_ema fits this network"),
        (("--transfer.freeze-d", 3), "--transfer.freeze-d 3: D has 3 blocks; leave at least one to learn"),
    ],
)
def test_what_cannot_be_is_refused(
    words: tuple[object, ...], sentence: str, images: Path, source: Path, tmp_path: Path
) -> None:
    start = ("--data", images, "--init-from", source, *SHORT, "--model.z-dim", 8, "--iterations", 1)
    result = run_script(*start, "--track.wandb", "disabled", "--out", tmp_path / "run", *words)
    assert (result.returncode, result.stderr.count("\n")) == (2, 1)
    assert sentence in result.stderr
