"""What each thing that makes training faster gains, and whether it changes the losses:

python -m benchmarks.levers [--rounds 20] [--levers NAME …] [FLAGS of train.py]

Two trainers take turns, iteration by iteration, one of them with the lever the other way round, so that a ratio
compares neighbours in time. Gain: how many times as long an iteration takes without it, the median of all rounds and
their quartiles. Difference: of the losses, relative, over the first three iterations. Levers of a GPU are left out on a
CPU.
"""

import argparse
import dataclasses
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from unittest import mock

import torch
from torch import nn

from gan import trainer as trainer_module
from gan.config import Config, parse
from gan.data.pack import open_pack
from gan.errors import reason
from gan.networks.blocks import PointTranspose, WholeConv
from gan.processes import keep_memory, layout_of, start_processes
from gan.run_folder import RunFolder
from gan.steps import Statistics
from gan.trainer import Trainer

WARM_UP = 3


@dataclasses.dataclass
class Lever:
    flag: str | None = None
    """A field of --speed."""
    prepare: Callable[[Trainer], None] = lambda trainer: None
    around: Callable[[], AbstractContextManager] = nullcontext
    after: Callable[[Statistics], None] = lambda losses: None
    """What takes it away where no flag does: once; around an iteration; after it."""
    cuda: bool = False

    def is_on(self, config: Config) -> bool:
        """Whether a run has it."""
        if self.flag == "channels_last":
            return layout_of(config, start_processes(config)) == torch.channels_last
        return self.flag is None or getattr(config.speed, self.flag)


@contextmanager
def unfrozen(network: nn.Module) -> Iterator[None]:
    """Gradients for D's weights in G's update too, which are then thrown away."""
    yield
    network.zero_grad()


def average_one_by_one(average: nn.Module, model: nn.Module, decay: float, iteration: int) -> None:
    d = min(decay, (1 + iteration) / (10 + iteration))
    with torch.no_grad():
        for mean, value in zip(average.parameters(), model.parameters(), strict=True):
            mean.mul_(d).add_(value, alpha=1 - d)


@contextmanager
def memory_given_back() -> Iterator[None]:
    """As glibc does by itself."""
    keep_memory(32 << 20)
    yield
    keep_memory()


@contextmanager
def all_convolutions() -> Iterator[None]:
    """G's first layer and D's last by torch's convolutions too."""
    with (mock.patch.object(PointTranspose, "forward", nn.ConvTranspose2d.forward),
          mock.patch.object(WholeConv, "forward", nn.Conv2d.forward)):  # fmt: skip
        yield


def forward_twice(trainer: Trainer) -> None:
    trainer.share_fakes = False


def read(losses: Statistics) -> None:
    for value in losses.values():
        value.item()


LEVERS = {
    "D frozen in G's update": Lever(around=lambda: mock.patch.object(trainer_module, "frozen", unfrozen)),
    "G's forward shared": Lever(prepare=forward_twice),
    "nothing read from the device": Lever(after=read),
    "average in one call": Lever(around=lambda: mock.patch.object(trainer_module, "update_ema", average_one_by_one)),
    "first and last layer as products": Lever(around=all_convolutions),
    "memory kept (CPU)": Lever(around=memory_given_back),
    "channels-last": Lever("channels_last"),
    "fused optimizers": Lever("fused"),
    "prefetch": Lever("prefetch"),
    "torch.compile": Lever("compile"),
    "TF32": Lever("tf32", cuda=True),
    "autotune": Lever("autotune", cuda=True),
}


def build(config: Config, scratch: Path, lever: Lever | None = None) -> Trainer:
    """A trainer; with a lever, one for which that is the other way round."""
    if lever and lever.flag:
        speed = dataclasses.replace(config.speed, **{lever.flag: not lever.is_on(config)})
        config = dataclasses.replace(config, speed=speed)
    folder = RunFolder(Path(tempfile.mkdtemp(dir=scratch)) / "run")
    folder.create()
    trainer = Trainer(config, start_processes(config), folder, open_pack(config))
    if lever:
        lever.prepare(trainer)
    return trainer


def timed(trainer: Trainer, iteration: int, lever: Lever | None = None) -> tuple[float, Statistics]:
    """Seconds of an iteration, and what it says."""
    torch.backends.cudnn.allow_tf32 = trainer.config.speed.tf32
    torch.backends.cudnn.benchmark = trainer.config.speed.autotune
    torch.backends.cudnn.deterministic = not trainer.config.speed.autotune
    began = time.perf_counter()
    with lever.around() if lever else nullcontext():
        found = trainer.iterate(iteration)
    if lever:
        lever.after(found)
    if trainer.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began, found


def compare(config: Config, lever: Lever, rounds: int, scratch: Path) -> tuple[list[float], float]:
    """The gain in each round, and the largest relative difference between the losses of the first iterations."""
    usual, other, on = build(config, scratch), build(config, scratch, lever), lever.is_on(config)
    gains, difference = [], 0.0
    for iteration in range(WARM_UP + rounds):
        (seconds, one), (seconds_other, two) = timed(usual, iteration), timed(other, iteration, lever)
        if iteration < WARM_UP:
            for name in ("loss/d", "loss/g"):
                difference = max(difference, abs(float(two[name]) / float(one[name]) - 1))
        else:
            gains.append(seconds_other / seconds if on else seconds / seconds_other)
    return gains, difference


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--levers", nargs="+", choices=LEVERS, default=list(LEVERS))
    asked, flags = parser.parse_known_args()
    config = parse(["--track.with", "none", *flags])
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{torch.get_num_threads()} cores"
    print(f"\nOn {device}, torch {torch.__version__}, {asked.rounds} rounds: {' '.join(flags)}\n")
    print("| lever | gain | quartiles | difference | on |\n|---|---|---|---|---|")
    for name in asked.levers:
        lever = LEVERS[name]
        if lever.cuda and not torch.cuda.is_available():
            continue
        try:
            with tempfile.TemporaryDirectory() as scratch:
                gains, difference = compare(config, lever, asked.rounds, Path(scratch))
        except Exception as error:  # not on this card; the others are measured all the same
            print(f"| {name} | failed: {reason(error)[:200]} | | | |", flush=True)
            continue
        low, middle, high = statistics.quantiles(gains, n=4)
        on = "yes" if lever.is_on(config) else "no"
        print(f"| {name} | {middle:.2f} | {low:.2f}–{high:.2f} | {difference:.1g} | {on} |", flush=True)


if __name__ == "__main__":
    main()
