"""The two updates of an iteration."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState

from gan.config import Config
from gan.data.pack import open_pack
from gan.processes import start_processes
from gan.run_folder import RunFolder
from gan.trainer import Trainer


def test_autocast_reaches_every_forward_of_both_players(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    AcceleratorState._reset_state(True)
    try:
        config = replace(config, dtype="float32")
        accelerator = start_processes(config)
        folder = RunFolder(Path(str(config.out)))
        folder.create()
        pack = open_pack(config)
        trainer = Trainer(config, accelerator, folder, pack)
        seen: list[tuple[str, torch.dtype]] = []
        trainer.G.to_image.register_forward_hook(lambda _m, _i, out: seen.append(("G", out.dtype)))  # type: ignore[union-attr]
        trainer.D.head.register_forward_hook(lambda _m, _i, out: seen.append(("D", out.dtype)))  # type: ignore[union-attr]
        statistics = trainer.iterate(0)
        assert seen == [("G", torch.bfloat16)] + [("D", torch.bfloat16)] * 3  # real, fake, and fake again for G
        assert {value.dtype for value in statistics.values()} == {torch.float32}
        assert {parameter.dtype for parameter in trainer.G.parameters()} == {torch.float32}
    finally:
        AcceleratorState._reset_state(True)


def test_d_is_thawed_and_left_without_gradients(config: Config) -> None:
    folder = RunFolder(Path(str(config.out)))
    folder.create()
    pack = open_pack(config)
    trainer = Trainer(config, start_processes(config), folder, pack)
    trainer.iterate(0)
    for module in (trainer.D, trainer.G):
        for parameter in module.parameters():
            assert parameter.requires_grad
            assert parameter.grad is None
