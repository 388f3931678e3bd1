"""What makes training fast, makes it nothing else; and it is fast. Ratios within one run alone: machines differ."""

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks import speed, textbook
from benchmarks.levers import LEVERS, build, compare
from gan.config import Config, ObjectiveConfig, parse

COMPILED = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")]  # torch looks at it


@pytest.mark.parametrize("name", [pytest.param(name, marks=COMPILED if name == "torch.compile" else [])
                                  for name, lever in LEVERS.items() if not lever.cuda])  # fmt: skip
def test_a_lever_changes_the_losses_as_rounding_does_at_most(name: str, config: Config, tmp_path: Path) -> None:
    """Three iterations in float64; what only leaves work out, or does it at another time, changes no bit."""
    gains, difference = compare(config, LEVERS[name], 1, tmp_path)
    assert len(gains) == 1
    in_another_order = ("channels-last", "fused optimizers", "torch.compile", "average in one call",
                        "first and last layer as products")  # fmt: skip
    assert difference <= (1e-12 if name in in_another_order else 0)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")
def test_compiled_networks_have_second_derivatives(config: Config, tmp_path: Path) -> None:
    penalised = replace(config, objective=ObjectiveConfig(penalty="r1"), model=replace(config.model, norm_d="layer"))
    assert compare(penalised, LEVERS["torch.compile"], 1, tmp_path)[1] <= 1e-12


def test_a_lever_really_turns(config: Config, tmp_path: Path) -> None:
    usual = build(config, tmp_path)
    strides = [next(build(config, tmp_path, LEVERS["channels-last"]).D.parameters()).is_contiguous(),
               next(usual.D.parameters()).is_contiguous()]  # fmt: skip
    assert strides == [True, False]
    assert not build(config, tmp_path, LEVERS["fused optimizers"]).player_d.optimizer.defaults["fused"]
    assert build(config, tmp_path, LEVERS["prefetch"]).batches.thread is None
    assert usual.batches.thread is not None
    assert build(config, tmp_path, LEVERS["torch.compile"]).G._compiled_call_impl is not None
    assert not build(config, tmp_path, LEVERS["G's forward shared"]).share_fakes
    assert usual.share_fakes


class Reads(TorchDispatchMode):
    """Counts what would make the host wait for a device; some of it does nothing on a CPU that could be dispatched."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found: list[str] = []
        for name in ("item", "tolist", "numpy", "cpu", "__bool__", "__int__", "__float__"):
            monkeypatch.setattr(Tensor, name, self.noting(name, getattr(Tensor, name)))

    def noting(self, name: str, read: Callable[..., Any]) -> Callable[..., Any]:
        def method(*args: Any, **kwargs: Any) -> Any:
            self.found.append(name)
            return read(*args, **kwargs)

        return method

    def __torch_dispatch__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.__name__.split(".")[0] in ("_local_scalar_dense", "nonzero", "is_nonzero", "equal", "masked_select"):
            self.found.append(func.__name__)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("objective", [ObjectiveConfig(), ObjectiveConfig(loss="relativistic", n_critic=2),
                                       ObjectiveConfig(loss="wasserstein", clip=0.01)])  # fmt: skip
def test_nothing_is_read_from_the_device_in_a_step(
    objective: ObjectiveConfig, config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = build(replace(config, objective=objective), tmp_path)
    trainer.iterate(0)
    with Reads(monkeypatch) as reads:
        trainer.iterate(1)
        assert reads.found == []
        float(trainer.player_d.gradient_norm)
    assert reads.found == ["__float__", "_local_scalar_dense.default"]


def test_the_step_takes_less_than_a_textbooks_and_hardly_more_than_its_convolutions(
    images: Path, tmp_path: Path
) -> None:
    """Rounds take turns, and each ratio is of the best: seconds of the processors, not of the clock, which other
    programs on the machine would stretch. docs/performance.md has the ratios by the clock of an idle machine."""
    setting = speed.Setting(width=64, batch_size=64, resolution=64, precision="no", iterations=4)
    config = replace(parse([*setting.flags, "--data", str(images)]), out=tmp_path / "run")
    trainer, device = build(config, tmp_path), torch.device("cpu")
    convolutions = speed.conv_iteration(setting, device)
    reals = torch.rand(64, 3, 64, 64)
    trainer.batches.at = lambda position: reals  # type: ignore[method-assign]
    rounds: dict[str, list[float]] = {"textbook": [], "step": [], "convolutions": []}
    for iteration in range(4):
        rounds["textbook"] += textbook.train([reals] * 2, 64, 64, 2, device, time.process_time)[1:]
        for name, work in (("step", partial(trainer.iterate, iteration)), ("convolutions", convolutions)):
            began = time.process_time()
            work()
            rounds[name].append(time.process_time() - began)
    best = {name: min(seconds) for name, seconds in rounds.items()}
    print(best)
    assert best["textbook"] / best["step"] > 1.1
    assert best["convolutions"] / best["step"] > 0.75
