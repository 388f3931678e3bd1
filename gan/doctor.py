"""`gan doctor`: what this machine is, and what would keep a run from working on it.

To add a check, write a function (config) → findings and give it a name in CHECKS. What merely is not there, a GPU say,
is a fact and no fault; a check that fails itself is a fault.
"""

import contextlib
import dataclasses
import os
import platform
import shutil
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from accelerate.commands.config.config_args import default_config_file

from gan import __version__
from gan.config import Config, Recipe, images_per_iteration, parse, total_iterations
from gan.data.pack import cache_folder, look_up
from gan.data.packing import available_cores
from gan.errors import RunError, UsageError, UserFault, reason
from gan.estimate import images_per_second, look_at
from gan.meeting import two_meet
from gan.memory import amount, memory_of, training_bytes
from gan.plan import checkpoint_bytes, images_of
from gan.processes import check_batch, check_gpu, own_cards, recommended
from gan.run_folder import SLURM, probe
from gan.telemetry.console import say
from gan.telemetry.trackers import wandb_mode

SPEED_S, MEETING_S, DRIVER_S = 4, 60, 30
"""How long speed is measured, about; how long two processes may take to meet, and the driver to answer."""
LOOK = 200
"""Images that are decoded for a look at the data."""
SCARCE_BYTES = 2 << 30
GOOD, ATTENTION, BAD = ("[ok]", 32), ("[! ]", 33), ("[x ]", 31)
"""Marks, each with its colour."""


@dataclasses.dataclass(frozen=True)
class Finding:
    """One line of the diagnosis, with what to do where something is wrong."""

    text: str
    remedy: str = ""
    mark: tuple[str, int] = GOOD


def print_diagnosis(data: str | None = None, recipe: Recipe = "quickstart") -> None:
    """Look at this machine, and at what a run would be like on it. Exit status 1 where a run would not work.

    Args:
        data: Images to look at too: a folder, a .zip, torchvision:NAME, or sprites.
        recipe: The recipe, or file of saved flags, whose memory and speed are estimated.
    """
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        raise UsageError("gan doctor starts processes of its own: run it without accelerate launch.", agreed=True)
    config = parse(["--recipe", recipe, *(() if data is None else ("--data", data))])
    checks = {name: check for name, check in CHECKS.items() if name != "data" or data is not None}
    bad = 0
    for name, check in checks.items():
        for finding in findings(name, check, config):
            show(name, finding)
            bad += finding.mark == BAD
    if bad:
        raise RunError(f"{bad} thing{'s'[: bad > 1]} marked {BAD[0]} would keep a run from working.")


def findings(name: str, check: "Check", config: Config) -> Iterator[Finding]:
    """What a check finds; where it fails itself, that."""
    try:
        yield from check(config)
    except UserFault as fault:
        yield Finding(str(fault), mark=BAD)
    except Exception as error:  # whatever a broken machine raises
        what = " ".join(f"{type(error).__name__}: {error}".split())
        yield Finding(f"could not be checked ({what[:300]}).", "Mend that; a run may meet it too.", BAD)


def show(name: str, finding: Finding) -> None:
    """A line; on a terminal coloured, and broken to its width."""
    mark, colour = finding.mark
    line = f"{mark} {name:10} {' '.join(f'{finding.text} {finding.remedy}'.split())}"
    if sys.stdout.isatty():
        line = textwrap.fill(line, shutil.get_terminal_size().columns, subsequent_indent=" " * 16,
                             break_long_words=False, break_on_hyphens=False)  # fmt: skip
        line = line.replace(mark, f"\x1b[{colour}m{mark}\x1b[0m", 1)
    say(line)


def check_versions(config: Config) -> Iterator[Finding]:
    """This package, Python, torch and what that was built for."""
    built = f"for {'CUDA' if torch.version.cuda else 'ROCm'} {torch.version.cuda or torch.version.hip}"
    if not (torch.version.cuda or torch.version.hip):
        built = "without CUDA"
    yield Finding(f"gan-trainer {__version__}, Python {platform.python_version()}, torch {torch.__version__} "
                  f"built {built}, {available_cores()} CPU cores")  # fmt: skip


def check_gpus(config: Config) -> Iterator[Finding]:
    """Those that the driver knows, and those of them that torch can use."""
    command, driver = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"], list[str]()
    if shutil.which(command[0]):
        try:
            asked = subprocess.run(command, capture_output=True, text=True, timeout=DRIVER_S)
        except subprocess.TimeoutExpired:
            yield Finding(
                f"nvidia-smi has not answered for {DRIVER_S} s.", "The driver hangs: restart the machine.", BAD
            )
            return
        driver = asked.stdout.split() if asked.returncode == 0 else []
        if asked.returncode:
            yield Finding(f"nvidia-smi fails: {' '.join((asked.stdout + asked.stderr).split())[:200]}",
                          "Mend the driver; until then runs are on the CPU.", ATTENTION)  # fmt: skip
    cards, seen = range(torch.cuda.device_count()), os.environ.get("CUDA_VISIBLE_DEVICES")
    hidden = "" if seen is None else f"; CUDA_VISIBLE_DEVICES is {seen!r}"
    if driver:
        text = f"the driver, {driver[0]}, has {len(driver)}; torch can use {len(cards)}{hidden}."
        remedy = "Unset that variable, or install the torch that pytorch.org names for your driver."
        yield Finding(text) if cards else Finding(text, remedy, ATTENTION)
    for index in cards:
        facts, free = torch.cuda.get_device_properties(index), torch.cuda.mem_get_info(index)[0]
        capability, busy = (facts.major, facts.minor), free < facts.total_memory / 2
        try:
            if torch.version.hip is None:
                check_gpu(facts.name, capability, torch.cuda.get_arch_list(), "no")
        except UsageError as fault:
            yield Finding(f"{index}: {fault}", mark=BAD)
            continue
        yield Finding(f"{index}: {facts.name}, capability {facts.major}.{facts.minor}, {amount(free)} of "
                      f"{amount(facts.total_memory)} free, supported by this torch.",
                      "Another process is using it." * busy, ATTENTION if busy else GOOD)  # fmt: skip
    if not cards:
        other = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
        yield Finding(
            f"no CUDA; torch's accelerator is {other}" if other else "none that torch can use: runs are on the CPU"
        )


def check_precision(config: Config) -> Iterator[Finding]:
    """What suits the GPUs, and what a plain `accelerate launch` would do instead."""
    words, mixed, why = recommended(own_cards())
    yield Finding(f"{'float32' if mixed == 'no' else mixed}, as {why}: "
                  f"accelerate launch --config_file accelerate_configs/{words} train.py")  # fmt: skip
    if os.path.isfile(default_config_file):
        yield Finding(f"without --config_file, accelerate launch follows your {default_config_file}")


def suitable(config: Config) -> str:
    """The precision that the recipe would be run in: no, bf16 or fp16."""
    return "no" if config.dtype == "float64" else recommended(own_cards())[1]


def check_processes(config: Config) -> Iterator[Finding]:
    """Whether two processes meet and add up right."""
    backend, began = "nccl" if torch.cuda.device_count() > 1 else "gloo", time.perf_counter()
    if complaint := two_meet(backend, MEETING_S):
        remedy = f"One process may do; for several look at the firewall and {backend.upper()}_SOCKET_IFNAME."
        yield Finding(f"two processes did not meet by {backend}: {complaint}.", remedy, BAD)
    else:
        yield Finding(f"two met by {backend} and added up right, in {time.perf_counter() - began:.1f} s")


def check_disk(config: Config) -> Iterator[Finding]:
    """Room for checkpoints, and for packed images."""
    need, out = (config.checkpoint.keep + 1) * checkpoint_bytes(config), Path(str(config.out))
    places = ((out, need, "run folder", "--out"), (cache_folder(config.data_options), 0, "cache", "XDG_CACHE_HOME"))
    for folder, least, what, flag in places:
        try:
            free = probe(folder)
        except OSError as error:
            yield Finding(
                f"the {what} {folder} cannot be written ({reason(error)}).", f"Choose another with {flag}.", BAD
            )
            continue
        mark = BAD if free < least else ATTENTION if free < SCARCE_BYTES else GOOD
        yield Finding(f"{amount(free)} free for the {what} {folder}{f', {amount(least)} needed' if least else ''}.",
                      "" if mark == GOOD else f"Make room, or choose another with {flag}.", mark)  # fmt: skip


def check_wandb(config: Config) -> Iterator[Finding]:
    """By what the disk and the environment say; the network is not asked."""
    try:
        mode = wandb_mode(config.track.wandb)
    except Exception as error:  # a run goes on without it
        what = " ".join(str(error).partition(" [type=")[0].split())  # what follows may be the value of a variable
        yield Finding(f"cannot be used ({what}), so a run goes on without it.",
                      "Look at the variables WANDB_…, or give --track.with none.", ATTENTION)  # fmt: skip
        return
    said = {"online": "online, logged in", "offline": "offline, not logged in: wandb login does that once"}
    yield Finding(f"{mode}, by WANDB_MODE" if "WANDB_MODE" in os.environ else said.get(mode, mode))


def check_slurm(config: Config) -> Iterator[Finding]:
    """The job this runs in, or whether jobs can be sent from here."""
    facts = [f"{name.removeprefix('SLURM_').lower()} {os.environ[name]}" for name in SLURM if name in os.environ]
    there = "sbatch is here: slurm/README.md says how to use it" if shutil.which("sbatch") else "none here"
    yield Finding(", ".join(facts) or there)


def check_memory(config: Config) -> Iterator[Finding]:
    """Whether the recipe fits, on the smallest card or in the machine's memory."""
    cards, mixed = own_cards(), suitable(config)
    rows = max(1, config.batch_size // max(1, len(cards)) // config.accumulation)
    devices = [torch.device("cuda", index) for index in range(len(cards))] or [torch.device("cpu")]
    need, room = training_bytes(config, rows, mixed), min(map(memory_of, devices))
    text = (
        f"recipe {config.recipe} needs about {amount(need)} for {rows} images at a time, and there are {amount(room)}."
    )
    fits = need < room
    yield Finding(text, "" if fits else "Lower --batch-size, or give --accumulation 2.", GOOD if fits else BAD)


def check_data(config: Config) -> Iterator[Finding]:
    """What is in the pack; where there is none, what some of the images are like."""
    try:
        source, pack = look_up(config)
    except RunError:
        yield Finding(f"{config.data} is downloaded when a run begins")
        return
    if pack is not None:
        count, whole, kind, index = len(pack.images), True, "packed", pack.index
        bad, tried, example, modes = index["rejected"], index["tried"], index["example"], index["modes"]
        sizes = [index["smallest"], index["largest"]]
    else:
        assert source is not None
        count, whole, kind, census = len(source), len(source) <= LOOK, "not packed yet", look_at(source, config, LOOK)
        rejected = [*census.rejected, *source.refused]
        bad, tried, modes = len(rejected), len(rejected) + len(census.decoded), census.modes
        example, sizes = ": ".join(rejected[0]) if rejected else "", [census.smallest, census.largest]
    smallest, largest = ("×".join(map(str, size)) for size in sizes)
    yield Finding(f"{count:,} images in {config.data}, {kind}"
                  + (f": {smallest} to {largest} pixels, {', '.join(modes)}" if modes else ""))  # fmt: skip
    if bad:
        most = config.data_options.max_rejected
        yield Finding(f"{bad} of {tried} that were looked at cannot be read, e.g. {example}.",
                      f"A run stops where more than {most:.0%} are like that (--data-options.max-rejected).",
                      BAD if not modes or (whole and bad > most * tried) else ATTENTION)  # fmt: skip
    check_batch(config, 1, count)


def check_speed(config: Config) -> Iterator[Finding]:
    """A few real iterations, and how long the recipe would take at that rate."""
    launched = "ACCELERATE_MIXED_PRECISION" in os.environ
    os.environ.setdefault("ACCELERATE_MIXED_PRECISION", suitable(config))
    try:
        rate, rows, count = images_per_second(config, SPEED_S, max(1, len(own_cards())))
    finally:
        if not launched:
            del os.environ["ACCELERATE_MIXED_PRECISION"]
    text, images = f"about {rate:,.0f} images/s ({count} iterations with batches of {rows})", None
    if config.epochs is not None:
        with contextlib.suppress(UsageError):  # check_data has said it
            images = images_of(config)[0]
    if config.epochs is None or images is not None:
        seconds = total_iterations(config, images or 0) * images_per_iteration(config) / rate
        long = f"{seconds / 3600:,.1f} h" if seconds > 5400 else f"{seconds / 60:,.1f} min"
        text += f", so all of it would take about {long}"
    alone = " on one of these GPUs" if len(own_cards()) > 1 else ""
    yield Finding(f"recipe {config.recipe}{alone}: {text}. An estimate.")


Check = Callable[[Config], Iterator[Finding]]
CHECKS: dict[str, Check] = {
    "versions": check_versions,
    "gpu": check_gpus,
    "precision": check_precision,
    "processes": check_processes,
    "disk": check_disk,
    "W&B": check_wandb,
    "SLURM": check_slurm,
    "data": check_data,
    "memory": check_memory,
    "speed": check_speed,
}
"""By name, in the order in which they are made; data only where `--data` is given."""
