"""A dry run against the run itself."""

import dataclasses
import math
import os
import re
from pathlib import Path

import filelock
import pytest
import safetensors.torch

from gan.cli import train as train_script
from gan.config import Config, EvalConfig, ModelConfig, OptimizerConfig, as_yaml, read_recipe
from gan.errors import UsageError
from gan.memory import amount
from gan.plan import checkpoint_bytes, layers, print_plan
from gan.run import train
from tests.conftest import TINY, run_script, with_processes
from tests.test_recipes import COUNTS


def shown(config: Config, capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    """The plan of a dry run: what → how much."""
    capsys.readouterr()
    print_plan(config)
    plan = capsys.readouterr().out.partition("\nPlan:\n\n")[2]
    return {line[:14].strip(): line[14:] for line in plan.splitlines() if line[:1].strip()}


def files(*folders: Path) -> list[Path]:
    return sorted(path for folder in folders for path in folder.rglob("*"))


def test_the_layers_of_small_networks() -> None:
    """Shapes and weights computed by hand: width 4 has 4 · 8 = 32 channels at 4×4, 16 at 8×8; kernels are 4×4."""
    config = Config(resolution=16, channels=1, model=ModelConfig(z_dim=5, width=4, norm_first=True, spectral_norm=True))
    found = layers(config)
    assert [(name, shape, count) for name, _, shape, count in found["G"]] == [
        ("G.blocks.4.conv", "32×4×4", 5 * 32 * 16),
        ("G.blocks.4.norm", "32×4×4", 2 * 32),
        ("G.blocks.4.act", "32×4×4", 0),
        ("G.blocks.8.conv", "16×8×8", 32 * 16 * 16),
        ("G.blocks.8.norm", "16×8×8", 2 * 16),
        ("G.blocks.8.act", "16×8×8", 0),
        ("G.to_image", "1×16×16", 16 * 1 * 16),
    ]
    assert [(name, shape, count) for name, _, shape, count in found["D"]] == [
        ("D.from_image.conv", "16×8×8", 1 * 16 * 16),
        ("D.from_image.norm", "16×8×8", 2 * 16),
        ("D.from_image.act", "16×8×8", 0),
        ("D.blocks.4.conv", "32×4×4", 16 * 32 * 16),
        ("D.blocks.4.norm", "32×4×4", 2 * 32),
        ("D.blocks.4.act", "32×4×4", 0),
        ("D.head", "1×1×1", 32 * 16),
    ]


@pytest.mark.parametrize("name", COUNTS)
def test_no_layer_of_a_recipe_is_left_out(name: str) -> None:
    players = layers(read_recipe(name)).values()
    assert tuple(sum(count for *_, count in found) for found in players) == COUNTS[name]


def test_a_run_from_its_plan_to_its_end(config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    """20 images in batches of 8; checkpoints after 4 and 6 iterations."""
    rmsprop = OptimizerConfig(method="rmsprop")
    saving = dataclasses.replace(config.checkpoint, every=4)
    config = dataclasses.replace(config, dtype="float32", optim_d=rmsprop, checkpoint=saving, sample_every=5)
    out, cache = Path(str(config.out)), Path(str(config.data_options.cache))
    plan = shown(config, capsys)
    assert files(out.parent) == []
    assert plan["images"].startswith("20 in ")
    assert "not packed yet" in plan["images"]
    assert plan["length"] == "6 iterations × 8 images = 0.048 kimg = 2.40 epochs"
    assert plan["log lines"] == "every 1 iterations and at the end: 6 in all"
    assert plan["sample grids"] == "every 5 iterations and at the end: 2 in all"
    assert plan["checkpoints"] == "every 4 iterations and at the end: 2 in all"
    room = amount(3 * checkpoint_bytes(config))
    assert plan["disk"].endswith(f"; 2 stay, {room} while one is saved")
    assert plan["run folder"] == f"{out}: begins anew"
    assert "too much" not in plan["memory"]

    train(config)
    for checkpoint in (out / "checkpoints").iterdir():
        tensors = [safetensors.torch.load_file(path) for path in checkpoint.glob("*.safetensors")]
        assert sum(value.nbytes for group in tensors for value in group.values()) == checkpoint_bytes(config)
    assert len([*(out / "checkpoints").iterdir()]) == 2
    assert len((out / "log.jsonl").read_text().splitlines()) == 6
    assert (out / "config.yaml").read_text() == as_yaml(config)

    before = files(out, cache)
    plan = shown(config, capsys)
    assert plan["images"] == f"20, packed in {next((cache / 'packs').glob('[!.]*'))}"
    assert plan["run folder"] == f"{out}: has finished, 6 iterations; nothing would be done"
    longer = dataclasses.replace(config, iterations=9)
    assert shown(longer, capsys)["run folder"] == f"{out}: goes on from iteration 6, 3 to go"
    anew = dataclasses.replace(config, resume="never")
    assert shown(anew, capsys)["run folder"] == f"{out}: begins anew; the run that is there would be set aside"
    branch = dataclasses.replace(longer, resume=str(out / "checkpoints" / "iteration-00000004"))
    goes_on = f"{out}: goes on from iteration 4, 5 to go; the run that is there would be set aside"
    assert shown(branch, capsys)["run folder"] == goes_on
    with pytest.raises(UsageError, match=r"was made with --optim-g.lr 0.001"):
        print_plan(dataclasses.replace(longer, optim_g=OptimizerConfig(lr=0.5)))
    with filelock.FileLock(out / ".lock"), pytest.raises(UsageError, match="another process is training in"):
        print_plan(config)
    (out / ".lock").unlink()
    (out / ".lock").mkdir()  # as good as one that may not be opened, which root always may
    with pytest.raises(UsageError, match="cannot lock the run folder"):
        print_plan(config)
    (out / ".lock").rmdir()
    (out / ".lock").touch()
    assert files(out, cache) == before


def test_what_evaluations_add_is_counted(config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    """After 5 and 10 iterations, and 12 in all; checkpoints after 4, 8 and 12 too, a log line after 10."""
    evaluating = dataclasses.replace(config.eval, every=5)
    saving = dataclasses.replace(config.checkpoint, every=4)
    plan = shown(dataclasses.replace(config, iterations=12, epochs=None, log_every=6, eval=evaluating,
                                     checkpoint=saving), capsys)  # fmt: skip
    assert plan["evaluations"] == "every 5 iterations and at the end: 3 in all"
    assert plan["checkpoints"] == "every 4 and every 5 iterations and at the end: 5 in all"
    assert plan["log lines"] == "every 6 and every 5 iterations and at the end: 4 in all"
    assert "; 4 stay, " in plan["disk"]
    few = dataclasses.replace(config, iterations=4, epochs=None, eval=evaluating, checkpoint=saving)
    assert "; 1 stay, " in shown(few, capsys)["disk"]


def test_what_is_not_known_before_a_download_is_not_said(config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    plan = shown(dataclasses.replace(config, data="torchvision:CIFAR10", iterations=None, epochs=2.5), capsys)
    assert plan["images"] == "torchvision:CIFAR10 is downloaded when the run begins, so their number is not known yet"
    assert plan["length"] == "2.5 epochs; an iteration shows 8 images"
    assert plan["log lines"] == "every 1 iterations and at the end"
    assert plan["run folder"].endswith(": begins anew")
    assert not any(path.suffix == ".gz" for path in files(Path(str(config.data_options.cache))))


def test_memory_that_is_not_there(
    config: Config, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gan.plan.memory_of", lambda device: 1 << 20)
    assert "1.0 MiB there: too much; lower --batch-size" in shown(config, capsys)["memory"]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"data": "nowhere"}, "there is no 'nowhere'"),
        ({"data": "torchvision:CIFR10"}, "did you mean CIFAR10?"),
        ({"batch_size": 21}, "20 images, fewer than one batch of 21"),
        ({"accumulation": 3}, "--batch-size 8 cannot be shared"),
        ({"out": Path("/dev/null/run")}, "cannot write to the run folder /dev/null/run: Not a directory"),
        ({"init_from": Path("nowhere")}, "--init-from nowhere: there is no checkpoint"),
        ({"eval": EvalConfig(every=2, metric="prdc", count=3)}, "prdc needs at least 6 images of each kind"),
        ({"resume": "nowhere"}, "--resume nowhere: there is no checkpoint"),
    ],
)
def test_what_the_run_would_refuse(
    change: dict[str, object], sentence: str, config: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UsageError, match=re.escape(sentence)):
        print_plan(dataclasses.replace(config, **change))  # type: ignore[arg-type]
    assert "G.blocks.4.conv" in capsys.readouterr().out, "what can be said is said before"


def test_an_empty_folder_is_refused_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train_script([*TINY, "--data", str(tmp_path), "--out", str(tmp_path / "run"), "--dry-run"]) == 2
    assert f"error: the run folder {tmp_path / 'run'} lies inside the images' folder" in capsys.readouterr().err
    assert train_script([*TINY, "--data", str(tmp_path), "--dry-run"]) == 2
    assert f"error: {tmp_path} holds no image" in capsys.readouterr().err


def test_two_processes_say_it_once(images: Path, tmp_path: Path) -> None:
    words, cores = (*TINY, "--data", images, "--out", tmp_path / "run", "--epochs", 2), os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    try:
        result = run_script(*words, "--dry-run", launcher=with_processes(2))
    finally:
        os.sched_setaffinity(0, cores)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("Warning: torch finds no GPU, and 2 processes share 1 CPU core(s)") == 1
    assert result.stdout.count("\nPlan:\n") == 1
    assert "processes     2 × " in result.stdout
    assert " for 4 images at a time in each process, " in result.stdout
    assert f"length        {math.ceil(2 * 20 / 8)} iterations × 8 images" in result.stdout
    assert os.listdir(tmp_path) == []
