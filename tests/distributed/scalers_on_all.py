"""Run by test_scalers.py through the launcher: fp16's loss scalers in the real loop on several processes.

The CPU has no fp16, so the players are told that they have it: the forward passes stay in float32, all else is as on a
GPU. Process 1 alone then has a gradient of D that overflows.
"""

import sys
from dataclasses import replace
from pathlib import Path

import torch

import gan.player
import gan.processes
from gan.config import Config, parse
from gan.data.pack import open_pack
from gan.processes import layout_of, start_processes, together
from gan.run_folder import RunFolder
from gan.trainer import Trainer
from tests.distributed.ending import group_is_gone

config = parse(sys.argv[1:])
accelerator = start_processes(config)
folder = RunFolder(Path(str(config.out)))
together(accelerator, folder.create if accelerator.is_main_process else lambda: None)
pack = open_pack(config)


def build(config: Config, precision: str) -> Trainer:
    setattr(gan.player, "precision", lambda accelerator: precision)  # noqa: B010  # mypy: an import is not assignable
    return Trainer(config, accelerator, folder, pack)


def check(config: Config) -> None:
    plain, scaled = build(config, "no"), build(config, "fp16")
    for iteration in range(3):
        plain.iterate(iteration)
        scaled.iterate(iteration)
    for one, two in zip(plain.D.parameters(), scaled.D.parameters(), strict=True):
        assert one.equal(two), "a scale that is a power of two has changed a bit"

    parameter = next(iter(scaled.D.parameters()))
    if accelerator.process_index == 1:
        hook = parameter.register_hook(lambda gradient: gradient * float("inf"))
    before = parameter.clone()
    scaled.iterate(3)
    assert parameter.equal(before), "an overflow on process 1 must skip the update everywhere"
    assert scaled.amp() == {"amp/scale_d": 2.0**15, "amp/skipped_d": 1, "amp/scale_g": 2.0**16, "amp/skipped_g": 0}
    if accelerator.process_index == 1:
        hook.remove()
    scaled.iterate(4)
    assert not parameter.equal(before)
    assert all(torch.isfinite(value).all() for value in scaled.G.state_dict().values())

    parameter = next(iter(plain.G.parameters()))
    if accelerator.process_index == 1:
        hook = parameter.register_hook(lambda gradient: gradient * float("nan"))
    before = parameter.clone()
    plain.iterate(3)
    assert parameter.equal(before), "a gradient of process 1 that is not finite must skip the update everywhere"
    assert plain.amp() == {"amp/skipped_d": 0, "amp/skipped_g": 1}
    if accelerator.process_index == 1:
        hook.remove()
    plain.iterate(4)
    assert not parameter.equal(before)
    print(f"process {accelerator.process_index} agrees at accumulation {config.accumulation}")


def check_layouts() -> None:
    """Cards that prefer other layouts train in one all the same: DDP compares strides."""
    assert layout_of(config, accelerator) == torch.channels_last
    setattr(gan.processes, "prefers_channels_last", lambda *card: accelerator.process_index == 0)  # noqa: B010
    assert layout_of(config, accelerator) == torch.contiguous_format


gone = group_is_gone()
for accumulation in (1, 2):
    check(replace(config, accumulation=accumulation))
check_layouts()
accelerator.state.destroy_process_group()
assert gone()
