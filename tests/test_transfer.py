"""Weights of one run in another: exactly the tensors that are said to be taken over, by the real script."""

from pathlib import Path

import pytest
import torch

from gan.checkpoint import Checkpoint
from gan.config import Config, ModelConfig
from gan.networks import NETWORKS
from gan.networks.blocks import Layers
from gan.networks.dcgan import Discriminator, Generator
from gan.transfer import freeze_first_blocks, take_over
from tests.conftest import QUIET, TINY, checkpoint_of, run_script, train, with_processes

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


def test_what_takes_the_scales_in_is_frozen_with_its_block() -> None:
    _, D = NETWORKS["msg"](Config(resolution=32, model=ModelConfig(network="msg", width=4)))
    freeze_first_blocks(D, 2)
    frozen = {name for name, parameter in D.named_parameters() if not parameter.requires_grad}
    of_blocks = {"from_image.conv.weight", "blocks.8.conv.weight", "blocks.8.norm.weight", "blocks.8.norm.bias"}
    assert frozen == of_blocks | {"lifts.16.weight", "lifts.8.weight"}


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
        (("--model.width", 12, "--model.z-dim", 9), "fits this network. It was trained with --model.width 8 "),
        (("--transfer.freeze-d", 3), "--transfer.freeze-d 3: D has 3 blocks; leave at least one to learn"),
        (("--transfer.freeze-d", 1, "--channels", 1), "would fix from_image.conv.weight, which starts anew here"),
        (("--transfer.freeze-d", 1, "--transfer.players", "g"), "--transfer.players g takes none over"),
    ],
)
def test_what_cannot_be_is_refused(
    words: tuple[object, ...], sentence: str, images: Path, source: Path, tmp_path: Path
) -> None:
    start = ("--data", images, "--init-from", source, *SHORT, "--model.z-dim", 8, "--iterations", 1)
    result = run_script(*start, *QUIET, "--out", tmp_path / "run", *words)
    assert (result.returncode, result.stderr.count("\n")) == (2, 1)
    assert sentence in result.stderr
    assert not (tmp_path / "run").exists()


def test_the_average_begins_with_the_weights_too(images: Path, source: Path, tmp_path: Path) -> None:
    train("--init-from", source, "--data", images, "--out", tmp_path, *SHORT, "--iterations", 1, "--optim-g.lr", 0)
    before, after = (
        checkpoint_of(source, 3).tensors["generator_ema"],
        checkpoint_of(tmp_path, 1).tensors["generator_ema"],
    )
    for name in weights(checkpoint_of(source, 3), "generator_ema"):
        torch.testing.assert_close(after[name], before[name], rtol=1e-6, atol=1e-9)  # averaged with itself


def test_what_fits_by_chance_is_not_taken() -> None:
    """At 64 and 128 px the last layers of this width have one shape; with another z, a stem's normalisation fits."""
    small, large, other = Generator(64, 3, 5, 16), Generator(128, 3, 5, 16), Generator(64, 3, 6, 16)
    assert small.to_image.weight.shape == large.to_image.weight.shape
    result = take_over(large, small.state_dict(), same_ends=False)
    assert "to_image.weight" in result.fresh
    assert "blocks.32.norm.running_mean" in result.taken
    assert "to_image.weight" in take_over(Generator(64, 3, 5, 16), small.state_dict(), same_ends=True).taken
    fresh = take_over(other, small.state_dict(), same_ends=True).fresh
    assert sorted(fresh) == [f"blocks.4.{part}" for part in ("conv.weight", "norm.bias", "norm.running_mean",
                                                             "norm.running_var", "norm.weight")]  # fmt: skip


def test_statistics_of_batchnorm_come_along() -> None:
    one, two = Generator(32, 3, 5, 8), Generator(32, 3, 5, 8)
    one(torch.randn(8, 5))
    take_over(two, one.state_dict(), same_ends=True)
    name = "blocks.8.norm.running_var"
    assert two.state_dict()[name].equal(one.state_dict()[name])
    assert not two.state_dict()[name].equal(torch.ones(32))


def test_spectral_normalisation_may_come_or_go() -> None:
    """D is the same function afterwards, where it was a normalised one."""

    def fresh(spectral: bool) -> Discriminator:
        return Discriminator(32, 3, 8, False, Layers(spectral=spectral))

    source, images = fresh(True), [torch.randn(4, 3, 32, 32)]
    source(images)  # a step of the power iteration
    expected = source.eval()(images)
    for target in (fresh(True), fresh(False)):
        assert not take_over(target, source.state_dict(), same_ends=True).fresh
        torch.testing.assert_close(target.eval()(images), expected)
    assert not take_over(fresh(True), fresh(False).state_dict(), same_ends=True).fresh


def test_another_source_is_another_run(images: Path, source: Path, tmp_path: Path) -> None:
    words = ("--data", images, *SHORT, "--iterations", 1, "--out", tmp_path)
    train("--init-from", source, *words)
    refused = run_script(*TINY, *words, "--iterations", 2)
    assert f"was made with --init-from {source}" in refused.stderr
    refused = run_script(*TINY, *words, "--init-from", "nowhere", "--resume", "never")
    assert "--init-from nowhere: there is no checkpoint" in refused.stderr
    assert checkpoint_of(tmp_path, 1)  # nothing has been moved
