"""The loss scaler of each player, placed into the real loop on a CPU."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from torch.amp.grad_scaler import GradScaler

from gan import checkpoint, listing
from gan.config import Config, ObjectiveConfig, SpeedConfig
from gan.data.pack import open_pack
from gan.ema import fit_statistics
from gan.errors import RunError
from gan.networks import NETWORKS
from gan.preemption import Preempted, Preemption
from gan.run_folder import RunFolder
from gan.trainer import Trainer
from gan.watchdog import Watchdog
from tests.conftest import checkpoint_of

SCALE = 2.0**16  # a loss scaler's first


def build(config: Config, name: str, precision: str = "fp16") -> Trainer:
    """A trainer whose players believe that its forward passes are in this precision."""
    config = replace(config, out=Path(str(config.out)).with_name(name), dtype="float32", iterations=1000)
    folder = RunFolder(Path(str(config.out)))
    folder.create()
    pack = open_pack(config)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gan.player.precision", lambda accelerator: precision)
        return Trainer(config, Accelerator(cpu=True), folder, pack)


def weights(trainer: Trainer) -> list[torch.Tensor]:
    return [value.clone() for module in (trainer.D, trainer.G, trainer.G_ema) for value in module.state_dict().values()]


@pytest.mark.parametrize("penalty", ["none", "gp", "r1"])
@pytest.mark.parametrize("accumulation", [1, 2])
def test_a_scale_that_is_a_power_of_two_changes_no_bit(accumulation: int, penalty: str, config: Config) -> None:
    """Penalties included: their slopes are taken before the loss is scaled."""
    objective, model = ObjectiveConfig(penalty=penalty), replace(config.model, norm_d="layer")
    config = replace(config, accumulation=accumulation, objective=objective, model=model)
    plain, scaled = build(config, "plain", "no"), build(config, "scaled")
    for iteration in range(5):
        plain.iterate(iteration)
        scaled.iterate(iteration)
    for one, two in zip(weights(plain), weights(scaled), strict=True):
        assert one.equal(two)
    assert plain.amp() == {"amp/skipped_d": 0, "amp/skipped_g": 0}
    assert scaled.amp() == {"amp/scale_d": SCALE, "amp/skipped_d": 0, "amp/scale_g": SCALE, "amp/skipped_g": 0}


def test_the_norm_of_a_gradient_is_that_of_the_loss_itself(config: Config) -> None:
    """Seen in Adam's first mean, which is (1 − β1) times the gradient; with a scaler as without."""
    for name, precision in (("plain", "no"), ("scaled", "fp16")):
        trainer = build(config, name, precision)
        statistics = trainer.iterate(0)
        for letter, player in (("d", trainer.player_d), ("g", trainer.player_g)):
            beta1 = player.optimizer.param_groups[0]["betas"][0]
            means = [state["exp_avg"] for state in player.optimizer.state.values()]
            expected = sum(float(mean.square().sum()) for mean in means) ** 0.5 / (1 - beta1)
            assert float(statistics[f"grad_norm/{letter}"]) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("loser", ["d", "g"])
@pytest.mark.parametrize("accumulation", [1, 2])
def test_an_overflow_skips_that_player_alone(loser: str, accumulation: int, config: Config) -> None:
    trainer = build(replace(config, accumulation=accumulation), "run")
    trainer.iterate(0)
    before = {"d": [p.clone() for p in trainer.D.parameters()], "g": [p.clone() for p in trainer.G.parameters()]}
    player = {"d": trainer.player_d, "g": trainer.player_g}[loser]
    parameter = next(iter(player.module.parameters()))
    hook = parameter.register_hook(lambda gradient: gradient * float("inf"))
    trainer.iterate(1)
    hook.remove()
    after = {"d": list(trainer.D.parameters()), "g": list(trainer.G.parameters())}
    for letter in "dg":
        moved = [not one.equal(two) for one, two in zip(before[letter], after[letter], strict=True)]
        assert not any(moved) if letter == loser else all(moved)
        assert trainer.amp()[f"amp/skipped_{letter}"] == (letter == loser)
        assert trainer.amp()[f"amp/scale_{letter}"] == (SCALE / 2 if letter == loser else SCALE)
    trainer.iterate(2)
    assert trainer.amp()[f"amp/skipped_{loser}"] == 1
    assert all(value.isfinite().all() for value in weights(trainer))


def test_scale_and_skipped_updates_are_logged(config: Config) -> None:
    trainer = build(config, "run")
    trainer.total = 2
    parameter = next(iter(trainer.G.parameters()))
    hook = parameter.register_hook(lambda gradient: gradient * float("nan"))
    trainer.run(Watchdog(trainer.accelerator, limit_s=60, farewell=""))
    hook.remove()
    lines = [json.loads(line) for line in trainer.folder.log.read_text().splitlines()]
    assert [line["amp/skipped_g"] for line in lines] == [1, 2]
    assert [line["amp/scale_g"] for line in lines] == [SCALE / 2, SCALE / 4]
    assert [line["amp/skipped_d"] for line in lines] == [0, 0]


def test_scale_and_count_survive_a_resume(config: Config) -> None:
    trainer = build(config, "run")
    trainer.player_g.skipped += 3
    trainer.player_d.scaler = GradScaler("cpu", init_scale=2.0**7)
    trainer.iteration = 1
    trainer.iterate(0)
    save(trainer)
    other = build(config, "run")
    assert other.iteration == 1
    expected = {"amp/scale_d": 2.0**7, "amp/skipped_d": 0, "amp/scale_g": SCALE, "amp/skipped_g": 3}
    assert other.amp() == expected


def test_each_player_has_its_scaler_and_a_fused_optimizer(config: Config) -> None:
    trainer = build(config, "run")
    players = (trainer.player_d, trainer.player_g)
    assert all(player.scaler.is_enabled() for player in players)
    assert players[0].scaler is not players[1].scaler
    assert all(player.optimizer.defaults["fused"] for player in players)
    assert not build(config, "other", "bf16").player_d.scaler.is_enabled()


def save(trainer: Trainer) -> None:
    """A checkpoint, and wait until it is written."""
    trainer.save()
    trainer.saver.settle()


def state_of(trainer: Trainer, letter: str) -> list[torch.Tensor]:
    """A player's weights and its optimizer's memory, copied."""
    player = {"d": trainer.player_d, "g": trainer.player_g}[letter]
    memory = [value for state in player.optimizer.state.values() for value in state.values()]
    return [value.detach().clone() for value in (*player.module.parameters(), *memory)]


def statistics_of(trainer: Trainer) -> list[torch.Tensor]:
    return [buffer.clone() for module in (trainer.G, trainer.D) for buffer in module.buffers()]


@pytest.mark.parametrize("method", ["adam", "adamw", "rmsprop", "adam, not fused", "adamw, not fused"])
@pytest.mark.parametrize("loser", ["d", "g"])
@pytest.mark.parametrize("first", [True, False], ids=["in the first iteration", "later"])
def test_a_gradient_that_is_not_finite_skips_the_update(first: bool, loser: str, method: str, config: Config) -> None:
    """Nothing of it stays: not in the weights, the optimizer's memory, BatchNorm's statistics or the average."""
    method, *unfused = method.split(",")
    optimizer = replace(config.optim_g, method=method, weight_decay=0.1 if method == "adamw" else 0)
    speed = SpeedConfig(fused=not unfused)
    trainer = build(replace(config, optim_d=optimizer, optim_g=optimizer, speed=speed), "run", "no")
    if not first:
        trainer.iterate(0)
    before = {letter: state_of(trainer, letter) for letter in "dg"}
    statistics = statistics_of(trainer)
    module = {"d": trainer.D, "g": trainer.G}[loser]
    hook = next(iter(module.parameters())).register_hook(lambda gradient: gradient * float("nan"))
    trainer.iterate(1)
    hook.remove()
    other = "g" if loser == "d" else "d"
    after = state_of(trainer, loser)
    assert all(one.equal(two) for one, two in zip(before[loser], after, strict=not first))
    if first:  # before there was no memory
        assert not any(value.any() for value in after[len(before[loser]) :])
    assert any(not one.equal(two) for one, two in zip(before[other], state_of(trainer, other), strict=False))
    assert all(one.equal(two) for one, two in zip(statistics, statistics_of(trainer), strict=True))
    assert trainer.amp() == {"amp/skipped_d": int(loser == "d"), "amp/skipped_g": int(loser == "g")}
    trainer.iterate(2)
    assert all(value.isfinite().all() for value in weights(trainer))
    assert any(not one.equal(two) for one, two in zip(before[loser], state_of(trainer, loser), strict=False))
    assert int(trainer.player_d.in_a_row) == int(trainer.player_g.in_a_row) == 0


def test_activations_that_overflow_leave_no_trace(config: Config) -> None:
    """An image of infinities goes through every BatchNorm of D."""
    trainer = build(config, "run", "no")
    trainer.iterate(0)
    statistics = statistics_of(trainer)
    at = trainer.batches.at
    trainer.batches.at = lambda position: at(position) * float("inf")  # type: ignore[method-assign]
    trainer.iterate(1)
    trainer.batches.at = at  # type: ignore[method-assign]
    assert all(value.isfinite().all() for value in weights(trainer))
    assert all(one.equal(two) for one, two in zip(statistics, statistics_of(trainer), strict=True))
    assert trainer.amp()["amp/skipped_d"] == 1


def test_a_loss_that_is_not_finite_is_enough(config: Config) -> None:
    """Although its gradient is 1 everywhere."""
    player = build(config, "run", "no").player_d
    before = [parameter.clone() for parameter in player.module.parameters()]
    player.backward(torch.stack([parameter.sum() for parameter in player.module.parameters()]).sum() + float("inf"))
    player.update()
    assert int(player.skipped) == 1
    assert all(one.equal(two) for one, two in zip(before, player.module.parameters(), strict=True))


def test_many_skipped_updates_in_a_row_end_the_run_with_a_diagnosis(config: Config) -> None:
    trainer = build(replace(config, max_skipped=3, objective=ObjectiveConfig(n_critic=2)), "run", "no")
    trainer.iterate(0)
    trainer.iteration = 1
    save(trainer)
    next(iter(trainer.G.parameters())).register_hook(lambda gradient: gradient * float("nan"))
    with pytest.raises(RunError) as fault:
        trainer.run(Watchdog(trainer.accelerator, limit_s=60, farewell=""))
    assert "G's gradients have not been finite since iteration 1: its last 3 updates were skipped" in str(fault.value)
    assert "Precision float32, learning rate 0.001" in str(fault.value)
    assert "--optim-g.lr" in str(fault.value)
    lines = [json.loads(line) for line in trainer.folder.log.read_text().splitlines()]
    assert [(line["amp/skipped_g"], line["verdict"]) for line in lines] == [
        (1, "starting"), (2, "starting"), (3, "diverged"),
    ]  # fmt: skip


def test_a_state_that_is_not_finite_never_becomes_a_checkpoint(config: Config) -> None:
    trainer = build(config, "run", "no")
    trainer.iterate(0)
    save(trainer)
    with torch.no_grad():
        next(iter(trainer.D.parameters()))[0] = float("inf")
    trainer.iteration = 1
    with pytest.raises(
        RunError, match="discriminator holds values that are not finite at iteration 1, and was not saved"
    ):
        save(trainer)
    assert [path.name for path in trainer.folder.checkpoints.iterdir()] == ["iteration-00000000"]


def test_a_stop_before_the_first_iteration_is_saved_too(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    def at_once(preemption: Preemption) -> bool:
        preemption.signal = 15
        return True

    trainer = build(config, "run", "no")
    monkeypatch.setattr(Preemption, "due", at_once)
    with pytest.raises(Preempted, match="Stopped by SIGTERM; saved at iteration 0 of 1000"):
        trainer.run(Watchdog(trainer.accelerator, limit_s=60, farewell=""))
    again, fresh = build(config, "run", "no"), build(config, "fresh", "no")
    assert [path.name for path in again.folder.checkpoints.iterdir()] == ["iteration-00000000"]
    for trainer in (again, fresh):
        trainer.iterate(0)
        trainer.fit_average()
    assert all(one.equal(two) for one, two in zip(weights(again), weights(fresh), strict=True))


def test_a_saved_average_has_statistics_of_its_own(config: Config) -> None:
    """Also where no picture is due; those of one iteration do not serve for the next."""
    trainer = build(config, "run", "no")
    for iteration in range(2):
        trainer.iterate(iteration)
        trainer.iteration = iteration + 1
        save(trainer)
        saved = checkpoint_of(trainer.folder.path, iteration + 1).tensors["generator_ema"]
        average = NETWORKS["dcgan"](config)[0].eval()
        average.load_state_dict(saved)
        fit_statistics(average, config.seed, config.model.z_dim)
        for name, value in average.state_dict().items():
            torch.testing.assert_close(saved[name], value, rtol=1e-5, atol=1e-5)
        assert not saved["blocks.8.norm.running_mean"].equal(trainer.G.state_dict()["blocks.8.norm.running_mean"])


def test_while_updates_are_skipped_nothing_takes_a_good_checkpoints_place(
    config: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    options = replace(config.checkpoint, keep=1)
    trainer = build(replace(config, checkpoint=options), "run", "no")
    save(trainer)
    trainer.iteration = 1
    trainer.player_d.in_a_row += 1
    save(trainer)
    assert "Not saved at iteration 1" in capsys.readouterr().out
    trainer.ending = True  # told to stop: better this than nothing, but beside the other
    save(trainer)
    assert [path.name for path in listing.listed(trainer.folder.checkpoints)] == [
        "iteration-00000001",
        "iteration-00000000",
    ]
    assert int(build(replace(config, checkpoint=options), "run", "no").player_d.in_a_row) == 1
    cured = replace(config, resume_changed=True, optim_d=replace(config.optim_d, lr=1e-5))
    assert int(build(cured, "run", "no").player_d.in_a_row) == 0


@pytest.mark.parametrize("group", ["generator", "generator_ema", "discriminator", "optimizer_g", "optimizer_d"])
def test_no_part_of_a_checkpoint_may_hold_what_is_not_finite(group: str, config: Config) -> None:
    trainer = build(config, "run", "no")
    trainer.iterate(0)
    modules = {"generator": trainer.G, "generator_ema": trainer.G_ema, "discriminator": trainer.D}
    if group in modules:
        values = list(modules[group].state_dict().values())
    else:
        player = trainer.player_g if group == "optimizer_g" else trainer.player_d
        values = [state["exp_avg"] for state in player.optimizer.state.values()]
    values[-1].fill_(float("nan")) if values[-1].is_floating_point() else values[0].fill_(float("nan"))
    with pytest.raises(RunError, match=f"{group} holds values that are not finite"):
        save(trainer)


def test_failures_count_only_in_a_row(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = build(replace(config, checkpoint=replace(config.checkpoint, max_failures=2)), "run", "no")
    written = checkpoint.save

    def full(*arguments: object) -> Path:
        raise OSError("the disk is full")

    for number, does in enumerate((full, written, full)):
        trainer.iteration = number
        monkeypatch.setattr(checkpoint, "save", does)
        save(trainer)
    with pytest.raises(RunError, match="could not be saved"):
        save(trainer)


def test_the_diagnosis_counts_iterations_not_updates(config: Config) -> None:
    trainer = build(replace(config, max_skipped=4, objective=ObjectiveConfig(n_critic=2)), "run", "no")
    trainer.player_d.in_a_row += 4
    trainer.iteration = 7
    with pytest.raises(RunError, match="D's gradients have not been finite since iteration 5: its last 4 updates"):
        trainer.check_progress()


def test_one_bad_update_of_several_in_an_iteration_leaves_no_trace(config: Config) -> None:
    """The first of D's two; the second one is good again."""
    trainer = build(replace(config, objective=ObjectiveConfig(n_critic=2)), "run", "no")
    trainer.iterate(0)
    statistics = statistics_of(trainer)
    at, first = trainer.batches.at, 2 * config.batch_size  # iteration 1 begins with D's third batch
    trainer.batches.at = lambda position: at(position) * (float("inf") if position == first else 1)  # type: ignore[method-assign]
    trainer.iterate(1)
    assert trainer.amp()["amp/skipped_d"] == 1
    assert all(one.equal(two) for one, two in zip(statistics, statistics_of(trainer), strict=True))


def test_into_fp16_from_a_run_that_was_not(config: Config) -> None:
    trainer = build(config, "run", "no")
    trainer.iterate(0)
    save(trainer)
    assert build(replace(config, resume_changed=True), "run").amp()["amp/scale_d"] == SCALE
