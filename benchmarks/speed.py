"""How fast training is, against a textbook loop, the convolutions alone and the device's ceilings:

python -m benchmarks.speed [--width 64] [--batch-size 64] [--resolution 64] [--precision no] [--rounds 3]

Each of several widths, batch sizes … is measured (`--width 64 128`). Every measurement is a process of its own; rounds
take turns, so that a ratio compares neighbours in time. images/s are means over all iterations after the first two:
textbook       as tutorials write it, decoding PNGs on the way (benchmarks/textbook.py)
textbook step  the same, of one batch again and again
trainer        this one as a user runs it, with logging, pictures and W&B offline
step           this one, of one batch again and again, with neither
convolutions   the networks' convolutions alone, forward and backward, as often as an iteration needs them
the same, kept the same, with the C library keeping the memory of tensors, as the trainer has it on a CPU
floor          the operations of those, at the rate of a large matrix product (the best of two ways to compute it)
"""

import argparse
import dataclasses
import itertools
import json
import math
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import textbook
from gan.config import SpeedConfig, parse
from gan.data.sprites import draw_sprite
from gan.processes import keep_memory, prefers_channels_last
from gan.run import train
from gan.steps import frozen
from gan.trainer import Trainer

WARM_UP, IMAGES = 2, 2000


@dataclasses.dataclass
class Setting:
    width: int
    batch_size: int
    resolution: int
    precision: str
    iterations: int

    @property
    def flags(self) -> list[str]:
        return ["--resolution", str(self.resolution), "--batch-size", str(self.batch_size), "--model.width",
                str(self.width), "--iterations", str(self.iterations), "--track.wandb", "offline"]  # fmt: skip


def images_of(scratch: Path, resolution: int) -> Path:
    """A folder of PNGs, as ImageFolder wants it."""
    folder = scratch / f"images-{resolution}"
    (folder / "sprites").mkdir(parents=True)
    for index in range(IMAGES):
        draw_sprite(index, resolution).convert("RGB").save(folder / "sprites" / f"{index}.png")
    return folder


def waited(device: torch.device) -> float:
    """The time when the device has done all it was told to."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def rate_of(step: Callable[[], object], setting: Setting, device: torch.device) -> float:
    """images/s of an iteration."""
    for _ in range(WARM_UP):
        step()
    began = waited(device)
    for _ in range(setting.iterations - WARM_UP):
        step()
    return (setting.iterations - WARM_UP) * setting.batch_size / (waited(device) - began)


def textbook_rate(setting: Setting, folder: Path, device: torch.device, same: bool = False) -> float:
    images: Iterator[Tensor] = textbook.batches(folder, setting.resolution, setting.batch_size)
    if same:
        images = itertools.repeat(next(images).to(device))
    seconds = textbook.train(images, setting.resolution, setting.width, setting.iterations, device)[WARM_UP:]
    return len(seconds) * setting.batch_size / sum(seconds)


def textbook_step_rate(setting: Setting, folder: Path, device: torch.device) -> float:
    return textbook_rate(setting, folder, device, same=True)


def trainer_rate(setting: Setting, folder: Path, device: torch.device) -> float:
    """From the end of the warm-up to the last iteration but one, as what is drawn and saved at the end comes only once;
    what is recorded on the way is in it."""
    times: list[float] = []
    record = Trainer.record

    def timed(self: Trainer, *words: Any) -> None:
        record(self, *words)
        if self.iteration in (WARM_UP, self.total - 1):
            times.append(waited(device))

    Trainer.record = timed  # type: ignore[method-assign, assignment]
    train(parse([*setting.flags, "--data", str(folder), "--out", str(folder.parent / f"run-{os.getpid()}")]))
    return (setting.iterations - 1 - WARM_UP) * setting.batch_size / (times[1] - times[0])


def step_rate(setting: Setting, folder: Path, device: torch.device) -> float:
    rates: list[float] = []

    def measure(self: Trainer, *words: Any) -> None:
        batch = self.batches.at(0)
        self.batches.at = lambda position: batch  # type: ignore[method-assign, assignment]
        numbers = itertools.count()
        rates.append(rate_of(lambda: self.iterate(next(numbers)), setting, device))

    Trainer.run = measure  # type: ignore[method-assign, assignment]
    train(parse([*setting.flags, "--data", str(folder), "--out", str(folder.parent / f"run-{os.getpid()}")]))
    return rates[0]


def convolutions(network: nn.Sequential) -> nn.Sequential:
    return nn.Sequential(*[layer for layer in network if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d)])


def conv_iteration(setting: Setting, device: torch.device) -> Callable[[], None]:
    """What an iteration asks of the convolutions: G once, D on real and generated images, D again for G."""
    networks = (make(setting.resolution, setting.width) for make in (textbook.generator, textbook.discriminator))
    G, D = map(convolutions, networks)
    last = prefers_channels_last(device, setting.precision in DTYPES, SpeedConfig.tf32)
    layout = torch.channels_last if last else torch.contiguous_format
    for network in (G, D):
        network.to(device).to(memory_format=layout)  # type: ignore[call-overload]
    z = torch.randn(setting.batch_size, 100, 1, 1, device=device)
    real = torch.randn(setting.batch_size, 3, setting.resolution, setting.resolution, device=device)
    real = real.contiguous(memory_format=layout)

    def iteration() -> None:
        with torch.autocast(device.type, getattr(torch, DTYPES.get(setting.precision, "float32")),
                            enabled=setting.precision in DTYPES):  # fmt: skip
            fake = G(z)
            (D(real).mean() + D(fake.detach()).mean()).backward()
            with frozen(D):
                D(fake).mean().backward()
        for parameter in (*G.parameters(), *D.parameters()):
            parameter.grad = None

    return iteration


DTYPES = {"bf16": "bfloat16", "fp16": "float16"}


def convolutions_rate(setting: Setting, folder: Path, device: torch.device) -> float:
    return rate_of(conv_iteration(setting, device), setting, device)


def convolutions_kept_rate(setting: Setting, folder: Path, device: torch.device) -> float:
    if device.type == "cpu":
        keep_memory()
    return convolutions_rate(setting, folder, device)


def floor_rate(setting: Setting, folder: Path, device: torch.device) -> float:
    with FlopCounterMode(display=False) as counter:
        conv_iteration(setting, device)()
    operations = counter.get_total_flops() / setting.batch_size
    return max(product_rate(setting, device, convolution) for convolution in (False, True)) / operations


@torch.no_grad()
def product_rate(setting: Setting, device: torch.device, convolution: bool) -> float:
    """Operations a second of a large matrix product, by the library for those or by the one for convolutions; on an AMD
    processor the second is twice as fast."""
    rows, side = (4096, 1024) if device.type == "cpu" else (1 << 14, 4096)
    options: Any = {"device": device, "dtype": getattr(torch, DTYPES.get(setting.precision, "float32"))}
    if convolution:
        x, weight = torch.randn(rows // 1024, side, 32, 32, **options), torch.randn(side, side, 1, 1, **options)
        x = x.contiguous(memory_format=torch.channels_last)
    else:
        x, weight = torch.randn(rows, side, **options), torch.randn(side, side, **options)
    product = torch.nn.functional.conv2d if convolution else torch.matmul
    seconds = []
    for _ in range(12):
        began = waited(device)
        product(x, weight)
        seconds.append(waited(device) - began)
    return 2 * rows * side**2 / min(seconds)


KINDS: dict[str, Callable[[Setting, Path, torch.device], float]] = {
    "textbook": textbook_rate,
    "textbook step": textbook_step_rate,
    "trainer": trainer_rate,
    "step": step_rate,
    "convolutions": convolutions_rate,
    "the same, kept": convolutions_kept_rate,
    "floor": floor_rate,
}
RATIOS = [("trainer", "textbook"), ("step", "textbook step"), ("trainer", "step"), ("step", "convolutions"),
          ("step", "the same, kept"),
          ("step", "floor")]  # fmt: skip


def measure(kind: str, setting: Setting, folder: Path) -> dict[str, float]:
    """images/s, and peak memory in MiB, of a process of its own; not a number where that fails, which is said."""
    words = [
        sys.executable,
        "-m",
        "benchmarks.speed",
        "--one",
        kind,
        str(folder),
        *map(str, dataclasses.astuple(setting)),
    ]
    environment = {**os.environ, "ACCELERATE_MIXED_PRECISION": setting.precision}
    result = subprocess.run(words, env=environment, capture_output=True, text=True)
    if result.returncode:
        print(f"{kind} failed: {(result.stderr.strip() or 'no reason given').splitlines()[-1]}", flush=True)
        return {"rate": math.nan, "memory_mib": math.nan}
    return json.loads(result.stdout.splitlines()[-1])


def one(kind: str, folder: str, *values: str) -> None:
    """In that process."""
    width, batch_size, resolution, precision, iterations = values
    setting = Setting(int(width), int(batch_size), int(resolution), precision, int(iterations))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    rate = KINDS[kind](setting, Path(folder), device)
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    peak = torch.cuda.max_memory_allocated() if device.type == "cuda" else resident
    print(json.dumps({"rate": rate, "memory_mib": peak / 2**20}))


def table(setting: Setting, found: dict[str, list[dict[str, float]]]) -> None:
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{os.cpu_count()} cores"
    print(
        f"\n{setting} on {device}, torch {torch.__version__}; medians (lowest–highest) of {len(found['step'])} rounds"
    )
    for kind, values in found.items():
        rates = [value["rate"] for value in values]
        memory = max([value["memory_mib"] for value in values if math.isfinite(value["rate"])], default=0)
        print(f"{kind:14} {spread(rates)} images/s, {memory:.0f} MiB")
    for one_kind, other in RATIOS:
        ratios = [a["rate"] / b["rate"] for a, b in zip(found[one_kind], found[other], strict=True)]
        print(f"{one_kind} / {other}: {spread(ratios)}")


def spread(values: list[float]) -> str:
    values = [value for value in values if math.isfinite(value)]
    if not values:
        return "–"
    return f"{statistics.median(values):.3g} ({min(values):.3g}–{max(values):.3g})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, standard in (("width", 64), ("batch-size", 64), ("resolution", 64)):
        parser.add_argument(f"--{name}", type=int, nargs="+", default=[standard])
    parser.add_argument("--precision", nargs="+", default=["no"], choices=["no", *DTYPES])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--iterations", type=int, default=1000 if torch.cuda.is_available() else 12)
    asked = parser.parse_args()
    if asked.iterations < WARM_UP + 2:
        parser.error(f"--iterations {asked.iterations}: at least {WARM_UP + 2}, of which {WARM_UP} are not measured.")
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["XDG_CACHE_HOME"] = scratch
        folders = {resolution: images_of(Path(scratch), resolution) for resolution in asked.resolution}
        for values in itertools.product(asked.width, asked.batch_size, asked.resolution, asked.precision):
            setting = Setting(*values, iterations=asked.iterations)
            found: dict[str, list[dict[str, float]]] = {kind: [] for kind in KINDS}
            for _ in range(asked.rounds):
                for kind in KINDS:
                    found[kind].append(measure(kind, setting, folders[setting.resolution]))
            table(setting, found)


if __name__ == "__main__":
    one(*sys.argv[2:]) if sys.argv[1:2] == ["--one"] else main()
