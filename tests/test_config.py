from pathlib import Path

import pytest
from accelerate.commands.launch import launch_command_parser

from gan import config
from gan.config import FLAGS, LAUNCHER_FLAGS, Config, flags, parse, total_iterations, trajectory
from gan.errors import UsageError


def test_the_command_line_overrides_the_recipe_and_the_recipe_the_defaults(tmp_path: Path) -> None:
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("kimg: 3\nbatch-size: 24\nmodel:\n  width: 12\n  norm_first: true\noptim-d: {lr: 1e-3}\n")
    parsed = parse(["--recipe", str(recipe), "--model.width", "10", "--model.width", "20"])
    assert (parsed.batch_size, parsed.model.width, parsed.model.norm_first, parsed.optim_d.lr) == (24, 20, True, 1e-3)
    assert parsed.optim_g.lr == Config().optim_g.lr
    assert parsed.kimg == 3


def test_a_length_on_the_command_line_replaces_the_recipes() -> None:
    assert parse([]).kimg == 200
    parsed = parse(["--epochs", "1.5"])
    assert (parsed.epochs, parsed.kimg, parsed.iterations) == (1.5, None, None)


def test_underscores_and_equal_signs_work() -> None:
    assert parse(["--batch_size=16", "--data_options.fit", "pad"]).data_options.fit == "pad"


def test_a_switch_on_its_own_means_true() -> None:
    parsed = parse(["--dry-run", "--model.norm-first", "--objective.halve-d", "--seed", "1", "--augment.fakes"])
    assert (parsed.dry_run, parsed.model.norm_first, parsed.objective.halve_d, parsed.augment.fakes) == (True,) * 4
    parsed = parse(["--dry-run", "False", "--model.sync-batchnorm=False", "--objective.halve-d", "None"])
    assert (parsed.dry_run, parsed.model.sync_batchnorm, parsed.objective.halve_d) == (False, False, None)


def test_a_dry_run_is_of_the_same_run_and_is_not_kept() -> None:
    assert parse(["--dry-run"]).out == parse([]).out
    assert config.as_yaml(parse(["--dry-run"])) == config.as_yaml(parse([]))


def test_a_saved_config_is_a_recipe(tmp_path: Path) -> None:
    original = parse(
        ["--model.norm-first", "True", "--optim-d.lr", "3e-5", "--data-options.cache", "/a b", "--seed", "7"]
    )
    (tmp_path / "config.yaml").write_text(config.as_yaml(original))
    again = parse(["--recipe", str(tmp_path / "config.yaml")])
    differing = {name for (name, a), (_, b) in zip(flags(original), flags(again), strict=True) if a != b}
    assert not differing, "the run's folder among them"


def test_a_default_that_is_given_is_the_same_run() -> None:
    """0 is not 0.0 to a checksum."""
    unset = ("out", "epochs", "iterations")
    given = [f"--{name}={value}" for name, value in flags(parse([])) if name not in unset and value is not None]
    assert parse(given).out == parse([]).out
    assert config.as_yaml(parse(given)) == config.as_yaml(parse([]))


def test_a_run_that_goes_on_by_its_config_keeps_the_name_of_its_recipe(tmp_path: Path) -> None:
    (run := tmp_path / "config.yaml").write_text(config.as_yaml(parse(["--recipe", "msg-64"])))
    again = parse(["--recipe", str(run), "--out", str(tmp_path)])
    assert again.recipe == "msg-64"
    assert config.as_yaml(again) == run.read_text()
    (mine := tmp_path / "mine.yaml").write_text("kimg: 3\n")
    assert parse(["--recipe", str(mine)]).recipe == str(mine)


def test_a_saved_config_means_the_same_in_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("elsewhere", "sprites"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)
    there = parse(["--data", "images", "--init-from", "run"])
    (tmp_path / "images").mkdir()
    for data in ("images", "./images/", str(tmp_path / "images")):
        assert there.out == parse(["--data", data, "--init-from", "run"]).out
    (tmp_path / "config.yaml").write_text(config.as_yaml(there))
    monkeypatch.chdir(tmp_path / "elsewhere")
    again = parse(["--recipe", str(tmp_path / "config.yaml")])
    assert again.data == f"{tmp_path}/images"
    assert again.out == there.out
    assert trajectory(again) == trajectory(there)
    monkeypatch.chdir(tmp_path)
    for data in ("sprites", "torchvision:MNIST"):
        assert f"data: {data}\n" in config.as_yaml(parse(["--data", data]))


def test_the_run_folder_follows_the_settings_that_decide_the_path() -> None:
    standard = parse([]).out
    assert (
        parse(["--log-every", "7", "--kimg", "9", "--track.wandb", "offline", "--checkpoint.every", "5"]).out
        == standard
    )
    assert parse(["--seed", "1"]).out != standard
    assert parse(["--data-options.fit", "pad"]).out != standard


def test_what_the_trajectory_leaves_out() -> None:
    everything = {name for name, _ in flags(Config())}
    left_out = everything - trajectory(Config()).keys()
    assert left_out == {
        *(
            "recipe",
            "data",
            "out",
            "dry-run",
            "samples",
            "resume",
            "epochs",
            "kimg",
            "iterations",
            "log-every",
            "sample-every",
        ),
        *("data-options.max-rejected", "data-options.workers", "data-options.cache", "data-options.resident"),
        *("data-options.max-megapixels", "data-options.drop-duplicates"),
        *("checkpoint.max-failures", "resume-changed", "max-skipped", "eval.every", "eval.metric", "eval.count"),
        *("checkpoint.every", "checkpoint.keep", "distributed.timeout", "track.wandb", "track.project"),
        *("track.with", "track.group", "track.artifact", "track.report", "checkpoint.overlap"),
        *(f"speed.{name}" for name in ("channels-last", "fused", "prefetch", "compile", "tf32", "autotune")),
    }


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("--recipe quikstart", "did you mean quickstart?"),
        ("--recipe=", "unknown recipe ''"),
        ("--recipe nowhere.yaml", "cannot read the recipe nowhere.yaml"),
        ("--modle.width 3", "unknown flag --modle.width; did you mean --model.width?"),
        ("--lr 1e-4", "unknown flag --lr; did you mean --optim-d.lr or --optim-g.lr?"),
        ("--num_processes=2", "unknown flag --num-processes; it belongs to the launcher: accelerate launch --num_proc"),
        ("--gpus 2", "unknown flag --gpus. See --help."),
        (
            "--objective.loss saturatin",
            "'saturatin' is not one of non-saturating, saturating, least-squares",
        ),
        ("--dry-run yes", "--dry-run: 'yes' is not one of True, False"),
        ("--model.network dcgn", "--model.network: 'dcgn' is not one of dcgan, msg; did you mean dcgan?"),
        ("--model.width wide", "--model.width: 'wide' is not a whole number"),
        ("--kimg many", "--kimg: 'many' is not a number"),
        ("--batch-size", "Missing value for argument '--batch-size'"),
        ("stray", "stray"),
        ("--resolution 48", "not a power of two from 16 to 512; the nearest is 32"),
        ("--resolution 1024", "the nearest is 512"),
        ("--channels 2", "choose 1 (grey), 3 (RGB) or 4"),
        ("--epochs 1 --kimg 2", "give exactly one length"),
        ("--iterations 0", "--iterations 0 must be at least 1"),
        ("--ema.decay 1.5", "--ema.decay 1.5 must be at most 1"),
        ("--optim-g.lr nan", "--optim-g.lr nan must be a finite number"),
        ("--optim-d.beta1 -0.1", "--optim-d.beta1 -0.1 must be at least 0"),
        ("--optim-d.beta2 1", "--optim-d.beta2 1.0 must be at most 0.999999"),
        ("--kimg 0", "--kimg 0.0 must be above 0"),
        ("--data-options.background wite", "'wite' is no colour"),
        ("--data-options.background rgb(999,0,0)", "'rgb(999,0,0)' is no colour"),
        ("--checkpoint.keep 1", "must be at least 2"),
        ("--augment.flip 1.5", "--augment.flip 1.5 must be at most 1"),
        ("--model.kernel 3", "choose 4 or 5"),
        ("--objective.penalty gp", "with BatchNorm D's scores depend on each other"),
        ("--model.head map --resolution 16", "--model.head map needs at least --resolution 32"),
        ("--model.stem dense --model.norm-g instance", "one value per output"),
        ("--model.stem dense --batch-size 4 --accumulation 4", "at least two images in each part"),
        ("--transfer.freeze-d 1", "says what to do with the weights of --init-from RUN"),
        ("--objective.loss wasserstein", "needs a bound on D's slope"),
        ("--objective.clip 0.1 --model.spectral-norm True", "exclude each other"),
        ("--optim-d.decay-from 5", "--optim-d.decay-to 0 must come after decay-from"),
        ("--optim-d.eps 0", "--optim-d.eps 0.0 must be above 0"),
        ("--init-from a --out a", "are the same folder"),
        ("--optim-g.decay-from 9 --optim-g.decay-to 9", "--optim-g.decay-to 9 must come after decay-from"),
        ("--optim-d.weight-decay 0.1", "--optim-d.weight-decay is adamw's; --optim-d.method is adam"),
    ],
)
def test_refusals_are_one_sentence(words: str, sentence: str) -> None:
    with pytest.raises(UsageError) as refusal:
        parse(words.split())
    assert sentence in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    "text", ["model: {wdth: 3}", "- a list", "kimg: [1", "objective: {loss: x}", "data: \xff", "[" * 10_000]
)
def test_a_wrong_recipe_is_named(text: str, tmp_path: Path) -> None:
    recipe = tmp_path / "mine.yaml"
    recipe.write_bytes(text.encode("latin-1"))
    with pytest.raises(UsageError, match=r"mine\.yaml"):
        parse(["--recipe", str(recipe)])


@pytest.mark.parametrize(
    ("length", "expected"),
    [({"iterations": 7}, 7), ({"kimg": 1.0}, 32), ({"epochs": 2.0}, 7), ({"epochs": 0.001}, 1), ({"epochs": 3.2}, 10)],
)
def test_lengths(length: dict[str, float], expected: int) -> None:
    assert total_iterations(Config(batch_size=32, **length), images=100) == expected  # type: ignore[arg-type]


def test_flags_of_the_launcher_are_those_that_it_has() -> None:
    theirs = {word.replace("_", "-") for action in launch_command_parser()._actions for word in action.option_strings}
    assert theirs >= LAUNCHER_FLAGS
    assert not LAUNCHER_FLAGS & {f"--{name}" for name in FLAGS}
