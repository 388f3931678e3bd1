"""N processes equal one, by the real script through the real launcher, in float64.

pytest tests/distributed/test_world_size.py -m "slow or not slow" -s prints the differences that the README quotes.
"""

import json
import os
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch

from gan.augment import AUGMENTS
from gan.checkpoint import Checkpoint
from gan.networks.blocks import NORMS
from gan.objectives import LOSSES, PENALTIES
from gan.optimizers import OPTIMIZERS
from tests.conftest import TINY, checkpoint_of, largest_difference, run_module, run_script, train, with_processes

ITERATIONS = 100
BOUND = 1e-11
NO_NORM = ("--model.norm-g", "none", "--model.norm-d", "none")
BATCHNORM = ("--model.norm-first", "True")
CRITIC = (*NO_NORM, "--model.norm-d", "layer", "--objective.loss", "wasserstein")
CASES: dict[str, tuple[str, ...]] = {
    "BatchNorm": BATCHNORM,
    "no normalisation": NO_NORM,
    "accumulation 2, no normalisation": (*NO_NORM, "--accumulation", "2"),
    "accumulation 2, BatchNorm": ("--accumulation", "2"),
    "instance norm, spectral norm": ("--model.norm-d", "instance", "--model.spectral-norm", "True"),
    "loss saturating": ("--objective.loss", "saturating"),
    "loss least-squares": ("--objective.loss", "least-squares"),
    "loss hinge": ("--objective.loss", "hinge"),
    "loss relativistic": ("--objective.loss", "relativistic"),
    "loss wasserstein, clipping, RMSprop, 2 critic steps, fresh latents": (
        *("--objective.loss", "wasserstein", "--objective.clip", "0.05", "--objective.n-critic", "2"),
        *("--objective.shared-latents", "False", "--optim-d.method", "rmsprop", "--optim-g.method", "rmsprop"),
        *("--optim-d.lr", "5e-5", "--optim-g.lr", "5e-5", "--optim-d.beta2", "0.9", "--optim-g.beta2", "0.9"),
    ),
    "sum over the batch": ("--objective.reduction", "sum"),
    "penalty gp": (*CRITIC, "--objective.penalty", "gp"),
    "penalty gp-one-sided, accumulation 2": (*CRITIC, "--objective.penalty", "gp-one-sided", "--accumulation", "2"),
    "penalty r1": (*CRITIC, "--objective.penalty", "r1"),
    "penalty r2": (*CRITIC, "--objective.penalty", "r2"),
    "penalty r1-r2, MSG": (*CRITIC, "--objective.penalty", "r1-r2", "--model.network", "msg"),
    "MSG, BatchNorm": ("--model.network", "msg"),
    "dropout": ("--model.dropout", "0.3"),
    "every augmentation, of real and generated images": (
        *(word for name in AUGMENTS for word in (f"--augment.{name.replace('_', '-')}", "0.5")),
        *("--augment.fakes", "True"),
    ),
}
ON_FOUR = ("BatchNorm", "accumulation 2, no normalisation", "penalty r1-r2, MSG")
"""Compared on four processes every time; the others too with pytest -m slow."""
LONG = (*ON_FOUR, "no normalisation")
"""Always trained for all the iterations. For the others 20, eight passes over the images, do: what differs between
the processes shows in the first ones, at a million times the bound. With pytest -m slow they are all alike."""
Ended = Callable[..., Checkpoint]


def started(processes: int) -> tuple[str, ...]:
    """Words for the launcher; one process needs none."""
    return with_processes(processes) if processes > 1 else ()


@pytest.fixture(scope="module")
def ended(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Ended:
    """The last checkpoint of a run on 20 images in batches of 8: forty passes, whose ends fall into the batches."""
    folder = tmp_path_factory.mktemp("runs")

    @cache
    def run(processes: int, *words: str, dtype: str = "float64", iterations: int = ITERATIONS) -> Checkpoint:
        out = folder / str(len(list(folder.iterdir())))
        train(
            *("--data", images, "--dtype", dtype, "--iterations", iterations, "--out", out, "--optim-g.lr", "1e-3"),
            *words,
            launcher=started(processes),
        )
        return checkpoint_of(out, iterations)

    return run


@pytest.fixture(scope="module")
def case(images: Path, tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Ended:
    """The last checkpoint of one of CASES. Runs of one number of processes share their start."""
    everything = pytestconfig.option.markexpr != "not slow"
    iterations = {name: ITERATIONS if everything or name in LONG else 20 for name in CASES}

    @cache
    def runs(processes: int, names: tuple[str, ...]) -> Path:
        folder = tmp_path_factory.mktemp(f"processes {processes}")
        common = [*TINY, "--data", images, "--dtype", "float64", "--optim-g.lr", "1e-3", "--iterations"]
        jobs = {name: [str(word) for word in (*common, iterations[name], *CASES[name])] for name in names}
        launcher = with_processes(processes)
        result = run_module("tests.distributed.train_all", folder, json.dumps(jobs), launcher=launcher, timeout=880)
        assert result.returncode == 0, result.stderr
        return folder

    def run(name: str, processes: int) -> Checkpoint:
        others = tuple(other for other in CASES if other not in ON_FOUR)
        names = tuple(CASES) if processes < 4 else ON_FOUR if name in ON_FOUR else others
        return checkpoint_of(runs(processes, names) / name, iterations[name])

    return run


def test_every_loss_penalty_and_augmentation_is_among_the_cases() -> None:
    words = {word for words in CASES.values() for word in words}
    for name in (*LOSSES, *PENALTIES, *NORMS, *OPTIMIZERS):
        assert name in words or name in ("non-saturating", "batch", "adam", "adamw")  # the defaults, and their cousin


@pytest.mark.timeout(900)  # the first of a number of processes trains all cases with it
@pytest.mark.parametrize(
    ("name", "processes"),
    [
        pytest.param(name, processes, marks=[pytest.mark.slow] if processes == 4 and name not in ON_FOUR else [])
        for name in CASES
        for processes in (2, 4)
    ],
)
def test_the_number_of_processes_does_not_change_the_result(name: str, processes: int, case: Ended) -> None:
    difference = largest_difference(case(name, 1), case(name, processes))
    print(f"\n| {name} | {processes} | {difference:.1e} |")
    assert difference <= BOUND


def test_accumulation_does_not_change_the_result_without_batchnorm(case: Ended) -> None:
    assert largest_difference(case("no normalisation", 1), case("accumulation 2, no normalisation", 1)) <= BOUND


def test_the_real_script_gives_the_same(case: Ended, ended: Ended) -> None:
    assert largest_difference(case("BatchNorm", 1), ended(2, *BATCHNORM)) <= BOUND


def test_without_synchronised_batchnorm_it_does(ended: Ended) -> None:
    """The proof can fail: with each process' own statistics the same comparison is far off."""
    alone = ended(2, *BATCHNORM, "--model.sync-batchnorm", "False")
    difference = largest_difference(ended(1, *BATCHNORM), alone)
    print(f"\n| BatchNorm, not synchronised | 2 | {difference:.1e} |")
    assert difference > 1e-3


def test_in_float32_the_first_gradients_agree_to_rounding(ended: Ended) -> None:
    """Adam's first moment after one iteration is the gradient times 1 − β1. Later iterations are not compared: Adam
    turns the rounding of a gradient near zero into a whole step."""
    one, two = (ended(processes, dtype="float32", iterations=1) for processes in (1, 2))
    for group in ("optimizer_d", "optimizer_g"):
        for name, value in one.tensors[group].items():
            if name.endswith("exp_avg"):
                difference = (value - two.tensors[group][name]).abs().max() / value.abs().max()
                assert difference < 1e-5, f"{name}: {difference}"  # sums of up to 2,048 terms of 1.2e-7 accuracy


def test_a_run_goes_on_with_another_number_of_processes(images: Path, tmp_path: Path, ended: Ended) -> None:
    """Two processes for 50 iterations, then one or four: the path of one process throughout."""
    words = ("--data", images, "--dtype", "float64", "--optim-g.lr", "1e-3", *BATCHNORM)
    train(*words, "--out", tmp_path / "1", "--iterations", 50, launcher=with_processes(2))
    shutil.copytree(tmp_path / "1", tmp_path / "4")
    straight = ended(1, *BATCHNORM)
    for processes in (1, 4):
        run = tmp_path / str(processes)
        printed = train(*words, "--out", run, "--iterations", ITERATIONS, launcher=started(processes))
        assert printed.count("Going on from") == 1
        difference = largest_difference(straight, checkpoint_of(run, ITERATIONS))
        print(f"\n| BatchNorm, stopped at 2 and gone on at {processes} | 2, then {processes} | {difference:.1e} |")
        assert difference <= BOUND


def test_bf16_on_two_processes_rounds_as_much_as_on_one(ended: Ended, images: Path, tmp_path: Path) -> None:
    """How far the first gradients of D (Adam's first moments) are from those in float32."""
    words = ("--data", images, "--iterations", 1, "--optim-g.lr", "1e-3")
    plain = first_moments(ended(1, dtype="float32", iterations=1))
    off = []
    for processes in (1, 2):
        train(*words, "--out", tmp_path / str(processes), launcher=with_processes(processes, "multi_gpu_bf16"))
        moments = first_moments(checkpoint_of(tmp_path / str(processes), 1))
        off.append(((moments - plain).norm() / plain.norm()).item())
    assert 0 < off[0] < 0.05  # bf16 keeps 8 bits, so every product is off by up to 0.004
    assert 0.5 < off[1] / off[0] < 2


def first_moments(found: Checkpoint) -> torch.Tensor:
    moments = sorted(found.tensors["optimizer_d"].items())
    return torch.cat([value.flatten() for name, value in moments if name.endswith("exp_avg")])


def test_without_synchronised_batchnorm_the_number_of_processes_must_stay(images: Path, tmp_path: Path) -> None:
    words = (*TINY, "--data", images, "--out", tmp_path, "--model.sync-batchnorm", "False", "--iterations")
    train(*words, 2, launcher=with_processes(2))
    refused = run_script(*words, 4)
    assert refused.returncode == 2
    assert "was made with 2 process(es) that each have their own BatchNorm" in refused.stderr
    train(*words, 4, "--model.norm-g", "none", "--model.norm-d", "none", "--resume", "never")  # these have none
    train(*words, 6, "--model.norm-g", "none", "--model.norm-d", "none", launcher=with_processes(2))


@pytest.mark.parametrize("form", [pytest.param("fp16", marks=pytest.mark.slow), "bf16"])
def test_compressed_gradients_are_rounded_and_no_more(form: str, ended: Ended) -> None:
    """As first moments show them: fp16 keeps 11 bits and nothing below 6e-8, bf16 keeps 8. Half of the first batch's
    gradient is added up on each process, so two roundings and a sum in that form may be seen."""
    plain = ended(2, dtype="float32", iterations=1)
    rounded = ended(2, "--distributed.compression", form, dtype="float32", iterations=1)
    unit = {"fp16": 2**-10, "bf16": 2**-7}[form]
    moments = {name: value for name, value in plain.tensors["optimizer_d"].items() if name.endswith("exp_avg")}
    for name, value in moments.items():
        difference = (rounded.tensors["optimizer_d"][name] - value).abs().max() / value.abs().max()
        assert 0 < difference < 3 * unit, name


@pytest.mark.parametrize("name", ["planets_64.zip", pytest.param("region_flags_64.zip", marks=pytest.mark.slow)])
def test_real_images(name: str, tmp_path: Path) -> None:
    folder = os.environ.get("GAN_TEST_IMAGES")
    if not folder:
        pytest.skip("set GAN_TEST_IMAGES to a folder of image sets to run on them")
    words = ("--data", Path(folder) / name, "--dtype", "float64", "--resolution", 32, "--iterations", 40, "--seed", 3)
    for processes in (1, 2):
        train(*words, "--out", tmp_path / str(processes), launcher=started(processes))
    one, two = (checkpoint_of(tmp_path / str(processes), 40) for processes in (1, 2))
    assert largest_difference(one, two) <= BOUND
