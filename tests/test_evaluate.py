"""`gan evaluate` on real runs: what it measures, on one process and on two, what it writes, and what it refuses."""

import dataclasses
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from gan.checkpoint import load
from gan.cli import main
from gan.config import Config, EvalConfig
from gan.data.pack import open_pack
from gan.data.sprites import draw_sprite
from gan.errors import UsageError
from gan.evaluate import DEFAULT_METRICS, Evaluator, headlines, table
from gan.networks import NETWORKS
from gan.run import train as train_here
from gan.run_folder import RunFolder
from gan.trained import TrainedGenerator, load_generator, read_run
from gan.watchdog import Watchdog
from tests.conftest import drawn, run_module, train, with_processes
from tests.metrics.conftest import Processes

Entries = list[dict[str, Any]]
COUNT = 150  # two whole blocks of images and a part of one


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two checkpoints on sprites, the second with an average that is not the weights themselves."""
    folder = tmp_path_factory.mktemp("evaluate") / "run"
    train("--data", "sprites", "--out", folder, "--iterations", 2, "--checkpoint.every", 1)
    return folder


@pytest.fixture
def fresh(run: Path) -> Path:
    """The run, with nothing measured yet."""
    (run / "evaluation.json").unlink(missing_ok=True)
    return run


def entries_of(run: Path) -> Entries:
    return json.loads((run / "evaluation.json").read_text("utf-8"))


def gan(monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    """The `gan` command in this process; its exit status."""
    monkeypatch.setattr(sys, "argv", ["gan", *map(str, words)])
    return main()


def launched(*words: object, processes: int) -> str:
    """`accelerate launch … -m gan …`, which must succeed; what it printed."""
    result = run_module("gan", *words, launcher=with_processes(processes))
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def test_two_processes_measure_what_one_does(fresh: Path) -> None:
    """Every digit, of two checkpoints at once; the table is printed once."""
    checkpoints = sorted((fresh / "checkpoints").glob("iteration-*"))
    assert len(checkpoints) == 2
    found: list[Entries] = []
    for processes in (1, 2):
        (fresh / "evaluation.json").unlink(missing_ok=True)
        printed = launched("evaluate", *checkpoints, "--count", COUNT, processes=processes)
        assert printed.count("swd ↓") == 1
        assert printed.count("iteration-00000001") == printed.count("iteration-00000002") == 1
        found.append(entries_of(fresh))
    assert found[0] == found[1]
    assert [(entry["iteration"], entry["metric"]) for entry in found[0]] == [
        (iteration, metric) for iteration in (1, 2) for metric in DEFAULT_METRICS
    ]
    first, second = found[0][: len(DEFAULT_METRICS)], found[0][len(DEFAULT_METRICS) :]
    assert all(one["values"] != two["values"] for one, two in zip(first[:3], second[:3], strict=True))
    assert all(one["protocol"] == two["protocol"] for one, two in zip(first, second, strict=True))


def evaluator(config: Config, **options: Any) -> Evaluator:
    return Evaluator(config, open_pack(config), Processes(), **{"metrics": ["frechet"], **options})  # type: ignore[arg-type]


def test_generated_images_are_those_of_gan_sample(run: Path) -> None:
    """In the bits that would be saved, whichever of them are asked for."""
    config, found = read_run(run), load(run / "checkpoints" / "iteration-00000002")
    saved = drawn(run, 100, seed=3)
    G = TrainedGenerator(config, load_generator(config, found))
    measured = evaluator(config, seed=3).draw(G, range(64, 100))
    assert measured.dtype == np.uint8
    assert (saved[0] != saved[64]).any()  # the batches that images are drawn in do not begin anew
    np.testing.assert_array_equal(measured, saved[64:])


def test_a_program_gets_the_values_of_the_command(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """(real images, generator) → dictionary, of the average and of the raw weights; real images are embedded once."""
    config, found = read_run(fresh), load(fresh / "checkpoints" / "iteration-00000002")
    evaluate = evaluator(config, metrics=("frechet", "prdc"), count=COUNT)
    for weights in ("ema", "raw"):
        values = evaluate(load_generator(config, found, weights))
        assert gan(monkeypatch, "evaluate", fresh, "--count", COUNT, "--metrics", "frechet", "prdc",
                   "--weights", weights) == 0  # fmt: skip
        told = {entry["metric"]: entry["values"] for entry in entries_of(fresh)[-2:]}
        assert entries_of(fresh)[-1]["protocol"]["weights"] == weights
        assert values == told
    assert len({json.dumps(entry["values"]) for entry in entries_of(fresh) if entry["metric"] == "frechet"}) == 2
    monkeypatch.setattr(evaluate, "real", None)  # is not looked at again
    assert evaluate(load_generator(config, found, "raw")) == values


def test_the_real_images_score_as_well_as_can_be(run: Path) -> None:
    """A generator that shows them in order: nothing lies between the pack and the metrics that would alter them."""
    config = read_run(run)
    evaluate = evaluator(config, metrics=DEFAULT_METRICS, count=COUNT)
    real = torch.from_numpy(evaluate.pack.images[evaluate.chosen]).permute(0, 3, 1, 2) / 127.5 - 1
    shown, blank = iter(real), torch.zeros(3, 16, 16)  # blank: the rest of the last block

    class Replay(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.anchor = torch.nn.Parameter(torch.zeros(1))

        def forward(self, z: Tensor) -> list[Tensor]:
            return [torch.stack([next(shown, blank) for _ in z])]

    values = evaluate(Replay())
    assert values["swd"] == {"swd": 0, "swd_16": 0}
    assert values["frechet"]["frechet"] < 1e-9
    assert values["kernel"]["kernel"] < 0
    assert values["prdc"] == pytest.approx({"precision": 1, "recall": 1, "density": 1.2, "coverage": 1}, rel=1e-3)


def test_a_checkpoint_named_twice_is_measured_once(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    newest = fresh / "checkpoints" / "iteration-00000002"
    assert gan(monkeypatch, "evaluate", fresh, newest, newest, "--metrics", "frechet", "--count", 20) == 0
    assert [entry["checkpoint"] for entry in entries_of(fresh)] == [newest.name]


def test_the_protocol_says_what_was_compared(
    fresh: Path, images: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With other images than the run's, and no more of any kind than there are of those."""
    assert gan(monkeypatch, "evaluate", fresh, "--data", images, "--seed", 5) == 0
    entries = {entry["metric"]: entry for entry in entries_of(fresh)}
    assert list(entries) == list(DEFAULT_METRICS)
    for entry in entries.values():
        assert entry["protocol"].items() >= {
            "real": 20, "fake": 20, "data": str(images), "images_of_data": 20, "seed": 5, "weights": "ema",
            "split": "other images than the run was trained on", "pixels": "16×16 of 8 bits, RGB",
        }.items()  # fmt: skip
        assert entry["checkpoint"] == "iteration-00000002"
    assert entries["prdc"]["protocol"]["neighbours"] == 5
    assert entries["frechet"]["protocol"]["embedding"] == "fixed random network"
    assert [entries[name]["better"] for name in DEFAULT_METRICS] == ["lower", "lower", "lower", "higher"]
    printed = capsys.readouterr().out
    assert "20 real images" in printed
    assert "other images than the run was trained on" in printed
    assert gan(monkeypatch, "evaluate", fresh, "--metrics", "frechet", "--count", 10) == 0
    assert entries_of(fresh)[-1]["protocol"]["split"] == "the images the run was trained on"
    assert entries_of(fresh)[-1]["protocol"]["real"] == 10


def test_measuring_again_replaces_measuring_otherwise_adds(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("evaluate", fresh, "--metrics", "frechet", "--count")
    for count in (10, 10, 12, 10):
        assert gan(monkeypatch, *words, count) == 0
    assert [entry["protocol"]["real"] for entry in entries_of(fresh)] == [12, 10]


def test_real_images_are_chosen_from_all_by_the_seed(run: Path) -> None:
    config = read_run(run)
    chosen = [evaluator(config, count=100, seed=seed).chosen for seed in (0, 0, 1)]
    np.testing.assert_array_equal(chosen[0], chosen[1])
    assert len(set(chosen[0]) & set(chosen[2])) < 10
    assert len(set(chosen[0])) == 100
    assert chosen[0].max() > 9000


@pytest.mark.parametrize(("channels", "told"), [(1, "grey, repeated as RGB"), (4, "RGBA over red")])
def test_grey_and_transparent_runs(channels: int, told: str, config: Config, tmp_path: Path) -> None:
    (tmp_path / "sprites").mkdir()
    for index in range(10):
        draw_sprite(index, 32).save(tmp_path / "sprites" / f"{index}.png")
    options = dataclasses.replace(config.data_options, background="red")
    config = dataclasses.replace(
        config, data=str(tmp_path / "sprites"), channels=channels, data_options=options, dtype="float32"
    )
    measure = evaluator(config)
    assert told in measure.protocol("frechet")["pixels"]
    corner = measure.real(range(10))[:, 0, 0]
    assert corner.shape == (10, 3)
    assert (corner == (76, 76, 76) if channels == 1 else corner == (255, 0, 0)).all()  # red, and as bright as red is
    assert measure(NETWORKS["dcgan"](config)[0])["frechet"]["frechet"] > 0


REFUSED: list[tuple[list[object], str]] = [
    (["--metrics", "fix"], "did you mean fid?"),
    (["--metrics"], "choose from swd"),
    (["--count", 0], "--count 0 must be at least 1"),
    (["--seed", -1], "--seed -1 at least 0"),
    (["--count", 5, "--metrics", "prdc"], "prdc needs at least 6 images of each kind; sprites has 10000, and 5 are"),
    (["--inception-weights", "w.pth"], "--inception-weights is for fid, kid, is, inception-prdc"),
    (["--data", "nowhere"], "there is no 'nowhere'"),
    (["--weights", "best"], "'best' is not one of ema, raw"),
]


@pytest.mark.parametrize(("words", "told"), REFUSED)
def test_what_cannot_be_measured(words: list[object], told: str, fresh: Path, monkeypatch: pytest.MonkeyPatch,
                                 capsys: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    assert gan(monkeypatch, "evaluate", fresh, *words) == 2
    error = capsys.readouterr().err.splitlines()
    assert len(error) == 1
    assert told in error[0]
    assert not (fresh / "evaluation.json").exists()


def test_what_is_no_run(fresh: Path, tmp_path: Path, images: Path, monkeypatch: pytest.MonkeyPatch,
                        capsys: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    def refusal(*words: object) -> str:
        assert gan(monkeypatch, "evaluate", *words) in (1, 2)
        return capsys.readouterr().err

    assert "give a run folder" in refusal()
    assert "is neither a run folder nor a checkpoint" in refusal(tmp_path)
    assert "is neither a run folder nor a checkpoint" in refusal(fresh, tmp_path / "none")
    copy = tmp_path / "copy"
    shutil.copytree(fresh, copy)
    assert gan(monkeypatch, "pack", images, tmp_path / "pack", "--resolution", 32) == 0
    capsys.readouterr()
    assert "packed with --resolution 32, but this run has 16" in refusal(copy, "--data", tmp_path / "pack")
    for content in ("{", "[3]", '[{"checkpoint": "x"}]', "[" * 100_000):
        (copy / "evaluation.json").write_text(content)
        assert "mend it or move it away" in refusal(copy)
    (copy / "evaluation.json").unlink()
    newest = copy / "checkpoints" / "iteration-00000002"
    (newest / "generator_ema.safetensors").write_bytes(b"")
    assert "generator_ema.safetensors is damaged" in refusal(newest)
    shutil.rmtree(copy / "checkpoints")
    assert "has no checkpoint yet" in refusal(copy)


def test_a_new_run_in_its_place_sets_the_results_aside(
    fresh: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(fresh, copy)
    assert gan(monkeypatch, "evaluate", copy, "--metrics", "frechet", "--count", 10) == 0
    RunFolder(copy).set_aside(every=1)
    assert (copy / "previous-1" / "evaluation.json").exists()
    assert not (copy / "evaluation.json").exists()


def test_a_disk_that_refuses_does_not_lose_the_results(
    fresh: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    obstacle = fresh / f".{os.getpid()}-evaluation.json"
    obstacle.mkdir()
    assert gan(monkeypatch, "evaluate", fresh, "--metrics", "frechet", "--count", 10) == 0
    obstacle.rmdir()
    printed = capsys.readouterr().out
    assert "evaluation.json could not be written" in printed
    assert "frechet ↓" in printed


def test_a_set_that_is_too_small_for_a_metric_is_refused_before_any_work(config: Config, tmp_path: Path) -> None:
    for index in range(8):
        draw_sprite(index, 32).save(tmp_path / f"{index}.png")
    config = dataclasses.replace(config, data=str(tmp_path))
    with pytest.raises(UsageError, match=r"is needs at least 10 images of each kind; .* has 8, and 5000 are asked for"):
        evaluator(config, metrics=("frechet", "is"))
    assert evaluator(config, metrics=("frechet", "prdc")).count == 8


def test_an_evaluation_in_training_is_progress(config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or a long one would end a run of several processes: after each block generated, and each real and generated one
    that is looked at."""
    calls: list[int] = []
    monkeypatch.setattr(Watchdog, "progress", lambda self: calls.append(1))
    for count in (None, 20, 150):
        options = EvalConfig(every=2, metric="frechet", count=count) if count else EvalConfig()
        train_here(dataclasses.replace(config, data="sprites", iterations=2, eval=options, out=tmp_path / f"{count}"))
        calls.append(0)
    none, few, many = ("".join(map(str, calls)) + "0").split("0")[:3]
    assert len(few) - len(none) >= 1 + 3
    assert len(many) - len(few) == 3 * 2, "three blocks, not one"


def test_the_table_says_of_each_run_what_it_was_compared_with() -> None:
    protocol = {"real": 20, "fake": 20, "data": "cats", "split": "its own", "weights": "ema", "seed": 0}
    one = {"run": "a", "checkpoint": "x", "better": "lower", "values": {"swd": 1.5}, "protocol": protocol}
    same = {**one, "run": "b"}
    other = {**one, "run": "c", "protocol": {**protocol, "data": "dogs"}}
    words = "20 real images of cats (its own), 20 generated, ema weights, seed 0."
    assert table([one, same]).splitlines()[3:-1] == [words]
    assert table([one, other, same]).splitlines()[4:-1] == [f"a, b: {words}", f"c: {words.replace('cats', 'dogs')}"]


def test_the_table_leaves_out_what_is_part_of_a_mean() -> None:
    assert headlines({"swd": 1, "swd_16": 1, "is": 2, "is_std": 3, "isolated": 4}) == {"swd": 1, "is": 2, "isolated": 4}
