"""Every setting of a run: a field here is a flag on the command line and a key in a recipe.

A recipe is a file of saved flags. It goes through the same parser as the command line, which has the last word.
"""

import dataclasses
import hashlib
import json
import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro
import yaml
from PIL import ImageColor
from tyro.constructors import PrimitiveConstructorSpec

from gan.data.pixels import BACKGROUND, FITS
from gan.data.sources import from_anywhere
from gan.errors import UsageError, plain_refusals, suggestion
from gan.listing import RECIPES, recipe_in
from gan.networks import NETWORKS
from gan.networks.blocks import NORMS
from gan.objectives import LOSSES, PENALTIES
from gan.optimizers import OPTIMIZERS
from gan.telemetry.trackers import TRACKERS, check_installed

DTYPES = ("float32", "float64")
COMPRESSIONS = ("no", "fp16", "bf16")
PLAYERS, WEIGHTS = ("both", "g", "d"), ("ema", "raw")
STEMS, HEADS, REDUCTIONS = ("transposed", "dense"), ("logit", "map"), ("mean", "sum")
RESIDENCES = ("auto", "gpu", "disk")
LENGTH = "the recipe's length"
WANDB_MODES = ("auto", "online", "offline", "disabled")


def one_of(names: Collection[str]) -> PrimitiveConstructorSpec[str]:
    """A flag whose value is one of `names`."""
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar="{" + ",".join(names) + "}",
        instance_from_str=lambda words: words[0],
        is_instance=lambda value: value in names,
        str_from_instance=lambda value: [value],
        choices=tuple(names),
    )


def some_of(names: Collection[str]) -> PrimitiveConstructorSpec[tuple[str, ...]]:
    """A flag whose value is any number of `names`."""
    one = one_of(names)
    return PrimitiveConstructorSpec(
        nargs="*",
        metavar=f"[{one.metavar} ...]",
        instance_from_str=tuple,
        is_instance=lambda value: isinstance(value, tuple) and all(map(one.is_instance, value)),
        str_from_instance=list,
        choices=tuple(names),
    )


class Offered(tuple[str, ...]):
    """What the shell's completion offers for a flag that takes other values too."""

    def __contains__(self, value: object) -> bool:
        return True


Recipe = Annotated[
    str,
    PrimitiveConstructorSpec(
        nargs=1,
        metavar="STR",
        instance_from_str=lambda words: words[0],
        is_instance=lambda value: isinstance(value, str),
        str_from_instance=lambda value: [value],
        choices=Offered(sorted(path.stem for path in RECIPES.glob("*.yaml"))),
    ),
]
"""A flag whose value is the name of a recipe or a path."""

Switch = Annotated[
    bool,
    PrimitiveConstructorSpec(
        nargs=(0, 1),
        metavar="[True|False]",
        instance_from_str=lambda words: words != ["False"],
        is_instance=lambda value: isinstance(value, bool),
        str_from_instance=lambda value: [str(value)],
        choices=("True", "False"),
    ),
]
"""A flag whose value is True or False; on its own it means True."""


def unset(metavar: str, default: str) -> Any:
    """How --help shows a flag that may be left unset: in words, what holds then."""
    return tyro.conf.arg(
        metavar=metavar, help_behavior_hint=lambda value: f"(default: {default if value == 'None' else value})"
    )


@dataclass(frozen=True)
class ModelConfig:
    """The networks G and D."""

    network: Annotated[str, one_of(NETWORKS)] = "dcgan"
    """Which pair of networks: dcgan, or msg with an image at every scale."""
    z_dim: int = 100
    """Numbers in one latent z."""
    width: int = 64
    """Channels at 32×32; 8 times as many at 4×4, half as many at 64×64."""
    kernel: int = 4
    """Side of the convolution kernels in pixels, 4 or 5."""
    stem: Annotated[str, one_of(STEMS)] = "transposed"
    """G's first layer: transposed normalises each of its channels, dense each of its outputs."""
    head: Annotated[str, one_of(HEADS)] = "logit"
    """D's output: one logit per image, or a map with one for each position at 8×8."""
    norm_g: Annotated[str, one_of(NORMS)] = "batch"
    """Normalisation in G's blocks."""
    norm_d: Annotated[str, one_of(NORMS)] = "batch"
    """Normalisation in D's blocks."""
    norm_first: Switch = False
    """Normalisation in D's first block too (the DCGAN paper advises against it)."""
    norm_momentum: float = 0.1
    """Weight of the newest batch in BatchNorm's running statistics (1 minus Keras' momentum)."""
    sync_batchnorm: Switch = True
    """BatchNorm over the images of all processes, so that their number does not change the result."""
    spectral_norm: Switch = False
    """Divide D's weights by their largest singular value."""
    dropout: float = 0.0
    """Probability with which each block of D loses a channel of a sample (not single values, as Keras' does)."""
    injection: float = 0.5
    """msg: channels that D lifts a coarser image to, as a multiple of those of the block it joins."""


@dataclass(frozen=True)
class ObjectiveConfig:
    """What they are trained to do."""

    loss: Annotated[str, one_of(LOSSES)] = "non-saturating"
    """What the players minimise."""
    reduction: Annotated[str, one_of(REDUCTIONS)] = "mean"
    """Differentiate the mean of the losses over the batch, or their sum."""
    halve_d: Annotated[Switch | None, unset("[True|False]", "for cross-entropy and least squares")] = None
    """Take half of D's two terms."""
    penalty: Annotated[str, one_of(PENALTIES)] = "none"
    """Keep D's slope by its images near 1 (gp), below 1 (gp-one-sided), or small (r1: real, r2: generated ones)."""
    penalty_weight: float = 10.0
    """Weight of the penalty: λ for gp, γ for r1 and r2, beside D's two terms as they are; where they are halved, it
    counts twice as much as in the papers."""
    clip: float = 0.0
    """Clip D's weights to ± this after each of its updates; 0 does not."""
    n_critic: int = 1
    """Updates of D for one of G, each on images of its own."""
    shared_latents: Switch = True
    """Use the latents of D's last update for G's too, instead of fresh ones."""


@dataclass(frozen=True)
class OptimizerConfig:
    """One player's optimizer."""

    method: Annotated[str, one_of(OPTIMIZERS)] = "adam"
    """Which optimizer."""
    lr: float = 2e-4
    """Learning rate, per update."""
    beta1: float = 0.5
    """adam, adamw: weight of the past in the mean of the gradients, per update, from 0 to 1."""
    beta2: float = 0.999
    """The same for the mean of their squares (rmsprop calls it alpha)."""
    eps: float = 1e-8
    """Added to the root of that mean."""
    weight_decay: float = 0.0
    """adamw: share of each weight that is taken off at each update, times the learning rate."""
    decay_from: int = 0
    """Iteration from which the learning rate falls, in a line to 0 at decay-to."""
    decay_to: int = 0
    """Iteration at which the learning rate has fallen to 0; 0: it stays as it is."""


@dataclass(frozen=True)
class EmaConfig:
    """The average of G's weights, which samples are drawn from."""

    decay: float = 0.999
    """Weight of the past in the average of G's weights, per iteration; 0 turns averaging off."""


@dataclass(frozen=True)
class DataOptions:
    """From files to pixels."""

    fit: Annotated[str, one_of(FITS)] = "crop"
    """How an image becomes square: crop (short side, then the centre), squash, or pad with the background."""
    background: str = BACKGROUND
    """Colour behind transparent pixels and padding: a CSS name or #rrggbb."""
    max_rejected: float = 0.01
    """Stop when more than this share of the files, from 0 to 1, cannot be read."""
    max_megapixels: float = 100.0
    """Leave out images of more million pixels: a small file can hold more of them than memory does."""
    drop_duplicates: Switch = False
    """Of images whose pixels are the same, once packed, keep one."""
    workers: int = 0
    """Processes that decode images while packing; 0 is one per CPU core."""
    resident: Annotated[str, one_of(RESIDENCES)] = "auto"
    """Where the images are while training; auto: the GPU's memory, if a quarter of what is free does."""
    cache: Annotated[Path | None, unset("PATH", "gan/ in $XDG_CACHE_HOME or ~/.cache")] = None
    """Where packs and downloads are kept."""


@dataclass(frozen=True)
class AugmentConfig:
    """Changes to images before D sees them."""

    flip: float = 0.0
    """Probability, from 0 to 1, that an image is mirrored left and right."""
    flip_vertical: float = 0.0
    """Probability that it is mirrored top and bottom."""
    shift: float = 0.0
    """Probability that it is moved in one of four directions, and filled up with the background."""
    color: float = 0.0
    """Probability of another brightness, saturation and contrast."""
    translation: float = 0.0
    """Probability that it is moved along both axes, and filled up with grey."""
    cutout: float = 0.0
    """Probability that a square of half its side is covered."""
    fakes: Switch = False
    """Show D both real and generated images augmented, not the real ones alone."""


@dataclass(frozen=True)
class TransferConfig:
    """What --init-from takes over."""

    players: Annotated[str, one_of(PLAYERS)] = "both"
    """Whose weights --init-from takes over: both, g or d."""
    weights: Annotated[str, one_of(WEIGHTS)] = "ema"
    """For G: the average, or the raw weights."""
    freeze_d: int = 0
    """Blocks of D, from the image on, whose weights stay as they are."""


@dataclass(frozen=True)
class CheckpointConfig:
    """Saving."""

    every: int = 1000
    """Iterations between checkpoints; one more is saved at the end."""
    keep: int = 3
    """How many of the newest checkpoints stay; at least 2."""
    overlap: Switch = True
    """Write a checkpoint while training goes on."""
    max_failures: int = 3
    """Checkpoints in a row that may fail, on a full disk say, before the run stops."""


@dataclass(frozen=True)
class SpeedConfig:
    """How it is computed, not what."""

    channels_last: Annotated[Switch | None, unset("[True|False]", "where it is faster")] = None
    """Keep a pixel's channels side by side in memory: faster on CPUs and tensor cores, slower on other GPUs."""
    fused: Switch = True
    """adam, adamw: update all weights by one kernel."""
    prefetch: Switch = True
    """Read the next batch from the disk while this one is trained on."""
    compile: Switch = False
    """Let torch.compile fuse what lies between convolutions: up to a minute longer to start, and needs a compiler."""
    tf32: Switch = True
    """On NVIDIA's cards since Ampere, let convolutions round float32 factors to 10 bits of mantissa."""
    autotune: Switch = False
    """On NVIDIA's cards, try convolution algorithms and keep the fastest; a repeated run then differs in rounding."""


@dataclass(frozen=True)
class DistributedConfig:
    """Several processes."""

    compression: Annotated[str, one_of(COMPRESSIONS)] = "no"
    """Send gradients between processes as fp16 or bf16: half the traffic, but rounded."""
    timeout: float = 300.0
    """Seconds without a sign of life from a process, or without an iteration, after which the run ends."""


@dataclass(frozen=True)
class TrackConfig:
    """Where the run can be followed."""

    with_: Annotated[str, one_of(TRACKERS), tyro.conf.arg(name="with")] = "wandb"
    """Where the run is logged besides its own folder; those after none are given numbers alone, and untested."""
    wandb: Annotated[str, one_of(WANDB_MODES)] = "auto"
    """wandb: auto is online when logged in, else offline."""
    project: str = "gan"
    """Project that the run belongs to."""
    group: Annotated[str | None, unset("STR", "none")] = None
    """wandb: group of runs that it belongs to."""
    artifact: Switch = True
    """wandb: keep the final average of G there, with a model card."""
    report: Switch = True
    """Draw plots/, progress.gif and report.html while training, by a process of the lowest priority."""


@dataclass(frozen=True)
class EvalConfig:
    """Measuring while training: gan evaluate, now and then."""

    every: Annotated[int | None, unset("INT", "never")] = None
    """Iterations between evaluations of the averaged G. Each is followed by a checkpoint."""
    metric: str = "swd"
    """What decides which checkpoint is the best one, which is kept: any of gan evaluate's."""
    count: int = 2000
    """Real and generated images in an evaluation; no more than there are real ones."""


@dataclass(frozen=True)
class Config:
    """Train a GAN on a folder of images. The defaults are those of --recipe."""

    recipe: Recipe = "quickstart"
    """Name of a built-in recipe, a .yaml file of saved flags, or list to see the names."""
    data: str = "sprites"
    """A folder, a .zip, torchvision:NAME, or sprites."""
    out: Annotated[Path | None, unset("PATH", "runs/RECIPE-DATA-HASH, the same for the same settings")] = None
    """Run folder."""
    dry_run: Switch = False
    """Show settings, networks, memory and plan of the run, and leave it at that."""
    resolution: int = 64
    """Side of the square images in pixels: a power of two from 16 to 512."""
    channels: int = 3
    """Channels of the images: 1 grey, 3 RGB, 4 RGB with alpha."""
    batch_size: int = 128
    """Images per update, over all processes together."""
    accumulation: int = 1
    """Parts a process makes of its share of the batch, to save memory; BatchNorm then sees a part at a time."""
    epochs: Annotated[float | None, unset("FLOAT", LENGTH)] = None
    """Length in passes over the images. Give one of epochs, kimg, iterations."""
    kimg: Annotated[float | None, unset("FLOAT", LENGTH)] = None
    """Length in thousands of images shown."""
    iterations: Annotated[int | None, unset("INT", LENGTH)] = None
    """Length in updates of G."""
    seed: int = 0
    """A whole number that every random number of the run follows from."""
    init_from: Annotated[Path | None, unset("PATH", "random weights")] = None
    """A run folder whose weights this run begins with, of whatever images, channels and resolution."""
    resume: str = "auto"
    """auto goes on from the newest intact checkpoint in the run folder, never starts anew, or a checkpoint's folder."""
    resume_changed: Switch = False
    """Go on from a checkpoint although settings have changed that decide the run's path; never of the networks."""
    max_skipped: int = 25
    """Stop after so many updates of a player in a row that were skipped because a gradient was not finite."""
    log_every: int = 50
    """Iterations between log entries."""
    sample_every: int = 500
    """Iterations between sample grids."""
    samples: int = 64
    """Images in a sample grid."""
    dtype: Annotated[str, one_of(DTYPES)] = "float32"
    """Precision of the weights; float64 is for proofs. Mixed precision is set by accelerate launch."""
    model: ModelConfig = field(default_factory=ModelConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    optim_d: OptimizerConfig = field(default_factory=OptimizerConfig)
    """D's optimizer."""
    optim_g: OptimizerConfig = field(default_factory=OptimizerConfig)
    """G's optimizer."""
    ema: EmaConfig = field(default_factory=EmaConfig)
    data_options: DataOptions = field(default_factory=DataOptions)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    transfer: TransferConfig = field(default_factory=TransferConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    speed: SpeedConfig = field(default_factory=SpeedConfig)
    distributed: DistributedConfig = field(default_factory=DistributedConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)
    track: TrackConfig = field(default_factory=TrackConfig)


LENGTHS = ("epochs", "kimg", "iterations")
FREE = {
    *("recipe", "data", "out", "dry-run", "resume", "resume-changed", *LENGTHS),
    *("checkpoint", "eval", "track", "speed"),
    *("max-skipped", "log-every", "sample-every", "samples", "distributed.timeout"),
    *("data-options.max-rejected", "data-options.workers", "data-options.cache", "data-options.resident"),
    *("data-options.max-megapixels", "data-options.drop-duplicates"),
}
"""Settings and groups that may change between a stop and a resume: they decide what is recorded, how long the run is
and how fast, not the path it takes (speed.… only as rounding does). What the images are is compared by the pack's
content, not by its place."""


def of_players(*names: str) -> list[str]:
    """The flags of both players' optimizers."""
    return [f"optim-{player}.{name}" for player in "dg" for name in names]


POSITIVE, TINY = 1e-9, 1e-30
CHANCES = [part.name.replace("_", "-") for part in dataclasses.fields(AugmentConfig) if part.name != "fakes"]
LEAST = {
    **dict.fromkeys(("batch-size", "checkpoint.keep"), 2),
    **dict.fromkeys(("iterations", "accumulation", "max-skipped", "log-every", "sample-every", "samples"), 1),
    **dict.fromkeys(("model.z-dim", "model.width", "objective.n-critic", "distributed.timeout"), 1),
    **dict.fromkeys(("checkpoint.every", "checkpoint.max-failures", "eval.every", "eval.count"), 1),
    **dict.fromkeys(("seed", "model.dropout", "objective.penalty-weight", "objective.clip", "ema.decay"), 0),
    **dict.fromkeys(("data-options.workers", "data-options.max-rejected", "transfer.freeze-d"), 0),
    **dict.fromkeys((f"augment.{name}" for name in CHANCES), 0),
    **dict.fromkeys(of_players("lr", "beta1", "beta2", "weight-decay", "decay-from", "decay-to"), 0),
    **dict.fromkeys(("epochs", "kimg", "model.injection", "model.norm-momentum"), POSITIVE),
    "data-options.max-megapixels": POSITIVE,
    **dict.fromkeys(of_players("eps"), TINY),
}
MOST = {
    **dict.fromkeys(("model.norm-momentum", "ema.decay", "data-options.max-rejected"), 1),
    **dict.fromkeys((f"augment.{name}" for name in CHANCES), 1),
    "model.dropout": 0.9,
    **dict.fromkeys(of_players("beta1", "beta2"), 0.999999),
}
RESOLUTIONS = (16, 32, 64, 128, 256, 512)


def flags(config: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every setting as (flag without its dashes, value), nested groups joined by dots."""
    for part in dataclasses.fields(config):
        value, name = getattr(config, part.name), prefix + part.name.rstrip("_").replace("_", "-")  # with_ → with
        if dataclasses.is_dataclass(value):
            yield from flags(value, name + ".")
        else:
            yield name, value


FLAGS = [name for name, _ in flags(Config())]


def trajectory(config: Config) -> dict[str, Any]:
    """The settings that decide the path of a run: equal dictionaries (and images) mean equal weights."""
    values = {name: str(value) if isinstance(value, Path) else value for name, value in flags(config)}
    return {name: value for name, value in values.items() if not {name, name.partition(".")[0]} & FREE}


def parse(arguments: list[str]) -> Config:
    """Command line → Config: the defaults, then the recipe, then the flags given. Raises UsageError."""
    named = recipe_in(arguments)
    recipe = read_recipe(Config.recipe if named is None else named)
    config = parse_flags(arguments, dataclasses.replace(recipe, epochs=None, kimg=None, iterations=None))
    config = dataclasses.replace(config, recipe=recipe.recipe)
    if all(getattr(config, name) is None for name in LENGTHS):
        config = dataclasses.replace(config, **{name: getattr(recipe, name) for name in LENGTHS})
    check(config)
    return dataclasses.replace(config, out=config.out or default_out(config))


def read_recipe(recipe: str) -> Config:
    """The settings of a built-in recipe (by name) or of a .yaml file, which may say, as that of a run does, from which
    recipe it has come."""
    built_in = {path.stem: path for path in sorted(RECIPES.glob("*.yaml"))}
    path = built_in.get(recipe, Path(recipe))
    if recipe not in built_in and path.suffix not in (".yaml", ".yml"):
        known = ", ".join(built_in)
        raise UsageError(
            f"unknown recipe {recipe!r}{suggestion(recipe, built_in)} Built in: {known}; or give a .yaml file."
        )
    try:
        settings = yaml.safe_load(path.read_text("utf-8")) or {}
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise UsageError(f"cannot read the recipe {path}: {' '.join(str(error).split())}") from None
    if not isinstance(settings, dict):
        raise UsageError(f"the recipe {path} must be a list of settings such as 'resolution: 64'")
    words = [f"--{name}={value}" for name, value in flatten(settings) if value is not None]
    try:
        return parse_flags(words, Config(recipe=recipe))
    except UsageError as error:
        raise UsageError(f"in the recipe {path}: {error}") from None


def flatten(settings: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """{'model': {'width': 64}} → ('model.width', 64)."""
    for name, value in settings.items():
        if isinstance(value, dict):
            yield from flatten(value, f"{prefix}{name}.")
        else:
            yield prefix + str(name), value


LAUNCHER_FLAGS = {f"--{name}" for name in (
    *("config-file", "num-processes", "mixed-precision", "multi-gpu", "gpu-ids", "cpu", "num-machines"),
    *("machine-rank", "main-process-ip", "main-process-port"),
)}  # fmt: skip
"""The commonest of accelerate launch, whose own list takes seconds to import."""


def meant(flag: str) -> str:
    """The end of a sentence on a flag that does not exist: those of that last name, or the one spelt alike, or where
    accelerate launch's own belong."""
    if same := [f"--{name}" for name in FLAGS if name.rpartition(".")[2] == flag.removeprefix("--")]:
        return f"; did you mean {' or '.join(same)}?"
    if flag in LAUNCHER_FLAGS:
        return f"; it belongs to the launcher: accelerate launch --{flag.strip('-').replace('-', '_')} … train.py …"
    return suggestion(flag, [f"--{name}" for name in FLAGS])


def parse_flags(words: list[str], default: Config) -> Config:
    """tyro's parser, with the nearest match for a flag that does not exist."""
    for word in words:
        flag, known = word.partition("=")[0].replace("_", "-"), [f"--{name}" for name in FLAGS]
        if flag.startswith("--") and flag not in [*known, "--help", "--tyro-write-completion"]:
            raise UsageError(f"unknown flag {flag}{meant(flag)} See --help.")
    with plain_refusals():
        return tyro.cli(Config, prog="train.py", args=words, default=default, config=(tyro.conf.FlagConversionOff,))


def check(config: Config) -> None:
    """Refuse, with a sentence each, the values no run can work with. Raises UsageError."""
    given = [f"--{name}" for name in LENGTHS if getattr(config, name) is not None]
    if len(given) != 1:
        raise UsageError(
            f"give exactly one length, --epochs, --kimg or --iterations; here: {' and '.join(given) or 'none'}."
        )
    side = config.resolution
    if side not in RESOLUTIONS:
        nearest = min(RESOLUTIONS, key=lambda allowed: abs(allowed - side))
        raise UsageError(f"--resolution {side} is not a power of two from 16 to 512; the nearest is {nearest}.")
    if config.channels not in (1, 3, 4):
        raise UsageError(f"--channels {config.channels}: choose 1 (grey), 3 (RGB) or 4 (RGB with alpha).")
    check_combinations(config)
    check_installed(config.track.with_)
    colour: tuple[int, ...]
    try:
        colour = ImageColor.getrgb(config.data_options.background)
    except ValueError:
        colour = (-1,)
    if not all(0 <= part <= 255 for part in colour):
        raise UsageError(
            f"--data-options.background {config.data_options.background!r} is no colour; try white or #ffffff."
        )
    for name, value in flags(config):
        if isinstance(value, float) and not math.isfinite(value):
            raise UsageError(f"--{name} {value} must be a finite number.")
        if value is not None and value < LEAST.get(name, value):
            bound = "above 0" if LEAST[name] in (POSITIVE, TINY) else f"at least {LEAST[name]}"
            raise UsageError(f"--{name} {value} must be {bound}.")
        if value is not None and value > MOST.get(name, value):
            raise UsageError(f"--{name} {value} must be at most {MOST[name]}.")


def check_combinations(config: Config) -> None:
    """Refuse settings that are right one by one, but not together. Raises UsageError."""
    model, objective = config.model, config.objective
    if model.kernel not in (4, 5):
        raise UsageError(f"--model.kernel {model.kernel}: choose 4 or 5.")
    if objective.penalty != "none" and model.norm_d == "batch":
        raise UsageError(
            f"--objective.penalty {objective.penalty} needs the slope of each sample's score, but with BatchNorm D's "
            "scores depend on each other. Use --model.norm-d layer, instance or none."
        )
    if model.head == "map" and config.resolution < 32:
        raise UsageError(f"--model.head map needs at least --resolution 32, not {config.resolution}.")
    if model.stem == "dense" and model.norm_g == "instance":
        raise UsageError("--model.stem dense has one value per output, which --model.norm-g instance would make zero.")
    if model.stem == "dense" and model.norm_g == "batch" and config.batch_size == config.accumulation:
        raise UsageError("--model.stem dense with BatchNorm needs at least two images in each part of the batch.")
    if config.transfer != TransferConfig() and config.init_from is None:
        raise UsageError("--transfer.… says what to do with the weights of --init-from RUN; give that too.")
    if config.transfer.freeze_d and config.transfer.players == "g":
        raise UsageError("--transfer.freeze-d fixes D's weights, but --transfer.players g takes none over.")
    if objective.loss == "wasserstein" and not (objective.clip or model.spectral_norm or objective.penalty != "none"):
        raise UsageError(
            "--objective.loss wasserstein needs a bound on D's slope: --objective.penalty gp, or --objective.clip."
        )
    if objective.clip and model.spectral_norm:
        raise UsageError("--objective.clip and --model.spectral-norm exclude each other: the second undoes the first.")
    if config.init_from is not None and config.out is not None and config.init_from.resolve() == config.out.resolve():
        raise UsageError("--init-from and --out are the same folder; to go on with a run, leave --init-from out.")
    for player, options in (("d", config.optim_d), ("g", config.optim_g)):
        if (options.decay_to or options.decay_from) and options.decay_to <= options.decay_from:
            raise UsageError(f"--optim-{player}.decay-to {options.decay_to} must come after decay-from.")
        if options.weight_decay and options.method != "adamw":
            raise UsageError(f"--optim-{player}.weight-decay is adamw's; --optim-{player}.method is {options.method}.")


def images_per_iteration(config: Config) -> int:
    """Real images that D sees in one iteration."""
    return config.batch_size * config.objective.n_critic


def same_command(config: Config) -> str:
    """What goes on with a run, in words; another `--resume` would not."""
    return "the same command" if config.resume == "auto" else "the same command with --resume auto"


def total_iterations(config: Config, images: int) -> int:
    """The run's length in iterations, rounded up. An iteration shows D a batch for each of its updates."""
    if config.iterations is not None:
        return config.iterations
    shown = config.epochs * images if config.epochs is not None else (config.kimg or 0) * 1000
    exactly = round(shown / images_per_iteration(config), 6)  # 1.1 × 100 is a little more than 110 to a computer
    return math.ceil(exactly)


def default_out(config: Config) -> Path:
    """runs/RECIPE-DATA-HASH. The same command comes back to the same folder, and so goes on where it stopped."""
    path = {**trajectory(config), "data": from_anywhere(config.data)}
    digest = hashlib.sha256(json.dumps(path, sort_keys=True).encode()).hexdigest()[:6]
    return Path("runs") / f"{Path(config.recipe).stem}-{Path(config.data.replace(':', '-')).resolve().stem}-{digest}"


def as_yaml(config: Config) -> str:
    """The settings as a recipe: `--recipe RUN/config.yaml` is the run again, wherever it is typed."""
    nested: dict[str, Any] = {}
    for name, value in flags(config):
        if name in ("out", "dry-run", "resume", "resume-changed") or value is None:
            continue
        *groups, key = name.split(".")
        place = nested
        for group in groups:
            place = place.setdefault(group, {})
        place[key] = from_anywhere(value) if name == "data" else str(value) if isinstance(value, Path) else value
    return yaml.safe_dump(nested, sort_keys=False)
