"""The loss scaler of each player, placed into the real loop on a CPU."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from torch.amp.grad_scaler import GradScaler

from gan.config import Config
from gan.data.pack import open_pack
from gan.run_folder import RunFolder
from gan.trainer import Trainer
from gan.watchdog import Watchdog


def build(config: Config, name: str, scale: float | None) -> Trainer:
    config = replace(config, out=Path(str(config.out)).with_name(name), dtype="float32", iterations=1000)
    folder = RunFolder(Path(str(config.out)))
    folder.create()
    pack = open_pack(config)
    trainer = Trainer(config, Accelerator(cpu=True), folder, pack.images, pack.content)
    if scale is not None:
        for player in (trainer.player_d, trainer.player_g):
            player.scaler = GradScaler("cpu", init_scale=scale)
    return trainer


def weights(trainer: Trainer) -> list[torch.Tensor]:
    return [value.clone() for module in (trainer.D, trainer.G, trainer.G_ema) for value in module.state_dict().values()]


@pytest.mark.parametrize("accumulation", [1, 2])
def test_a_scale_that_is_a_power_of_two_changes_no_bit(accumulation: int, config: Config) -> None:
    config = replace(config, accumulation=accumulation)
    plain, scaled = build(config, "plain", None), build(config, "scaled", 2.0**10)
    for iteration in range(5):
        plain.iterate(iteration)
        scaled.iterate(iteration)
    for one, two in zip(weights(plain), weights(scaled), strict=True):
        assert one.equal(two)
    assert plain.amp() == {}
    assert scaled.amp() == {"amp/scale_d": 2.0**10, "amp/skipped_d": 0, "amp/scale_g": 2.0**10, "amp/skipped_g": 0}


@pytest.mark.parametrize("loser", ["d", "g"])
@pytest.mark.parametrize("accumulation", [1, 2])
def test_an_overflow_skips_that_player_alone(loser: str, accumulation: int, config: Config) -> None:
    trainer = build(replace(config, accumulation=accumulation), "run", 2.0**10)
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
        assert trainer.amp()[f"amp/scale_{letter}"] == (2.0**9 if letter == loser else 2.0**10)
    trainer.iterate(2)
    assert trainer.amp()[f"amp/skipped_{loser}"] == 1
    assert all(value.isfinite().all() for value in weights(trainer))


def test_scale_and_skipped_updates_are_logged(config: Config) -> None:
    trainer = build(config, "run", 2.0**10)
    trainer.total = 2
    parameter = next(iter(trainer.G.parameters()))
    hook = parameter.register_hook(lambda gradient: gradient * float("nan"))
    trainer.run(Watchdog(trainer.accelerator, limit_s=60))
    hook.remove()
    lines = [json.loads(line) for line in trainer.folder.log.read_text().splitlines()]
    assert [line["amp/skipped_g"] for line in lines] == [1, 2]
    assert [line["amp/scale_g"] for line in lines] == [2.0**9, 2.0**8]
    assert [line["amp/skipped_d"] for line in lines] == [0, 0]


def test_scale_and_count_survive_a_resume(config: Config) -> None:
    trainer = build(config, "run", 2.0**10)
    trainer.player_g.skipped += 3
    trainer.player_d.scaler = GradScaler("cpu", init_scale=2.0**7)
    trainer.iteration = 1
    trainer.iterate(0)
    trainer.save()
    other = build(config, "run", None)
    assert other.iteration == 1
    other.player_d.scaler, other.player_g.scaler = (GradScaler("cpu") for _ in range(2))
    other.resume()
    expected = {"amp/scale_d": 2.0**7, "amp/skipped_d": 0, "amp/scale_g": 2.0**10, "amp/skipped_g": 3}
    assert other.amp() == expected
