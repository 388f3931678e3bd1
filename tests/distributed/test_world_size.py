"""N processes equal one, by the real script through the real launcher, in float64.

pytest tests/distributed/test_world_size.py -s prints the differences that the README quotes.
"""

import os
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from gan.checkpoint import Checkpoint
from tests.conftest import checkpoint_of, largest_difference, train, with_processes

ITERATIONS = 100
BOUND = 1e-11
NO_NORM = ("--model.norm-g", "none", "--model.norm-d", "none")
CASES: dict[str, tuple[str, ...]] = {
    "BatchNorm": ("--model.norm-first", "True"),
    "no normalisation": NO_NORM,
    "accumulation 2, no normalisation": (*NO_NORM, "--accumulation", "2"),
    "accumulation 2, BatchNorm": ("--accumulation", "2"),
    "flips of real and generated images": (
        "--augment.flip",
        "0.5",
        "--augment.flip-vertical",
        "0.3",
        "--augment.fakes",
        "True",
    ),
    "saturating loss": ("--objective.loss", "saturating"),
}
Ended = Callable[..., Checkpoint]


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
            launcher=with_processes(processes),
        )
        return checkpoint_of(out, iterations)

    return run


@pytest.mark.parametrize("processes", [2, 4])
@pytest.mark.parametrize("case", CASES)
def test_the_number_of_processes_does_not_change_the_result(case: str, processes: int, ended: Ended) -> None:
    difference = largest_difference(ended(1, *CASES[case]), ended(processes, *CASES[case]))
    print(f"\n| {case} | {processes} | {difference:.1e} |")
    assert difference <= BOUND


def test_accumulation_does_not_change_the_result_without_batchnorm(ended: Ended) -> None:
    whole, parts = ended(1, *NO_NORM), ended(1, *CASES["accumulation 2, no normalisation"])
    assert largest_difference(whole, parts) <= BOUND


def test_without_synchronised_batchnorm_it_does(ended: Ended) -> None:
    """The proof can fail: with each process' own statistics the same comparison is far off."""
    alone = ended(2, *CASES["BatchNorm"], "--model.sync-batchnorm", "False")
    difference = largest_difference(ended(1, *CASES["BatchNorm"]), alone)
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
    words = ("--data", images, "--dtype", "float64", "--optim-g.lr", "1e-3", *CASES["BatchNorm"])
    train(*words, "--out", tmp_path / "1", "--iterations", 50, launcher=with_processes(2))
    shutil.copytree(tmp_path / "1", tmp_path / "4")
    straight = ended(1, *CASES["BatchNorm"])
    for processes in (1, 4):
        run = tmp_path / str(processes)
        printed = train(*words, "--out", run, "--iterations", ITERATIONS, launcher=with_processes(processes))
        assert printed.count("Going on from") == 1
        difference = largest_difference(straight, checkpoint_of(run, ITERATIONS))
        print(f"\n| BatchNorm, stopped at 2 and gone on at {processes} | 2, then {processes} | {difference:.1e} |")
        assert difference <= BOUND


@pytest.mark.parametrize("form", ["fp16", "bf16"])
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


@pytest.mark.parametrize("name", ["planets_64.zip", "region_flags_64.zip"])
def test_real_images(name: str, tmp_path: Path) -> None:
    folder = os.environ.get("GAN_TEST_IMAGES")
    if not folder:
        pytest.skip("set GAN_TEST_IMAGES to a folder of image sets to run on them")
    words = ("--data", Path(folder) / name, "--dtype", "float64", "--resolution", 32, "--iterations", 40, "--seed", 3)
    for processes in (1, 2):
        train(*words, "--out", tmp_path / str(processes), launcher=with_processes(processes))
    one, two = (checkpoint_of(tmp_path / str(processes), 40) for processes in (1, 2))
    assert largest_difference(one, two) <= BOUND
