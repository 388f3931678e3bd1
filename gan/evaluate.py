"""How near the images of a generator are to real ones: on the command line, or from (real images, G) in a program."""

import json
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import tyro
from accelerate import Accelerator
from torch import nn

from gan.checkpoint import Checkpoint, from_message, to_message
from gan.config import WEIGHTS, Config, one_of, some_of
from gan.data.pack import Pack, open_pack
from gan.errors import UsageError, reason
from gan.files import replace_file
from gan.latents import numbered
from gan.metrics import EMBEDDINGS, METRICS
from gan.metrics.comparison import Comparison, Shards, Values, background, to_rgb
from gan.processes import check_agreement, from_main, one_first, start_processes
from gan.randomness import generator
from gan.telemetry.console import aligned, say
from gan.trained import (
    TrainedGenerator,
    draw,
    load_generator,
    locate,
    read_checkpoint,
    read_run,
    with_images,
)
from gan.watchdog import Watchdog

RESULTS = "evaluation.json"
Entry = dict[str, Any]
KEYS = {"checkpoint", "metric", "better", "values", "protocol"}
COUNT, DEFAULT_METRICS = 5000, ("swd", "frechet", "kernel", "prdc")


class Evaluator:
    """Compares generators with one set of real images. Every process builds one and calls it alike."""

    def __init__(self, config: Config, pack: Pack, accelerator: Accelerator, metrics: Collection[str],
                 count: int = COUNT, seed: int = 0, inception_weights: Path | None = None):  # fmt: skip
        """As many images of each kind as `count` says, or as the pack has, if those are fewer. A collective; raises
        UsageError."""
        self.config, self.pack, self.seed, self.metrics = config, pack, seed, list(dict.fromkeys(metrics))
        self.accelerator, self.count = accelerator, min(count, len(pack.images))
        check_count(self.metrics, config.data, len(pack.images), count)
        wanted = {network for metric in self.metrics if (network := METRICS[metric].network)}
        self.networks = {
            name: one_first(accelerator, partial(EMBEDDINGS[name], config.resolution, inception_weights))
            .to(accelerator.device)
            .eval()
            for name in sorted(wanted)
        }
        self.chosen = np.sort(generator(seed, "metrics/real").permutation(len(pack.images))[: self.count])
        self.background = background(config)
        self.known: dict[str, torch.Tensor] = {}

    @torch.no_grad()
    def __call__(self, G: nn.Module, progress: Callable[[], None] = lambda: None) -> dict[str, Values]:
        """metric → its values, on the main process; nothing on the others. A collective.

        G takes z (N, z_dim) of the run's dtype and gives images in [−1, 1]; it is moved to this process' device.
        `progress` is called now and then.
        """
        generator = TrainedGenerator(self.config, G.to(self.accelerator.device).eval())
        shards = Shards(self.accelerator, self.count, self.config.resolution, progress)
        with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
            pixels = shards.map(lambda rows: torch.from_numpy(self.draw(generator, rows)), "Generating").numpy()

            def fake(rows: range) -> np.ndarray:
                if not shards.rows:  # more processes than blocks: this one has nothing to do, but the shape to know
                    return np.zeros((len(rows), *pixels.shape[1:]), np.uint8)
                return pixels[rows.start - shards.rows.start :][: len(rows)]

            comparison = Comparison(
                shards, self.real, fake, self.config.resolution, self.seed, self.networks, self.known
            )
            return {name: METRICS[name].compute(comparison) for name in self.metrics}

    def draw(self, G: TrainedGenerator, rows: range) -> np.ndarray:
        """Images number `rows` of the seed, those of gan sample, as they are saved: uint8 (n, H, W, 3)."""
        return to_rgb(np.concatenate(list(draw(G, numbered(self.seed, rows, G.z_dim)))), self.background)

    def real(self, rows: range) -> np.ndarray:
        """uint8 (N, H, W, 3): the chosen real images of these numbers."""
        return to_rgb(self.pack.images[self.chosen[rows.start : rows.stop]], self.background)

    def protocol(self, metric: str) -> dict[str, Any]:
        """What the values of a metric depend on, besides the generator."""
        network = METRICS[metric].network
        return {
            "real": self.count,
            "fake": self.count,
            "data": self.config.data,
            "images_of_data": len(self.pack.images),
            "images_sha256": self.pack.content,
            "seed": self.seed,
            "pixels": f"{self.config.resolution}×{self.config.resolution} of 8 bits, {self.colours()}",
            **METRICS[metric].protocol,
            **(self.networks[network].protocol() if network else {}),
        }

    def colours(self) -> str:
        """What becomes of the channels before anything is measured, in words."""
        return {
            1: "grey, repeated as RGB",
            3: "RGB",
            4: f"RGBA over {self.config.data_options.background}",
        }[self.config.channels]


def check_count(metrics: Collection[str], data: str, images: int, count: int) -> None:
    """Refuse sets that are too small for a metric: `count` images are asked for, and there are `images` real ones.
    Raises UsageError."""
    for name in metrics:
        if min(images, count) < METRICS[name].least:
            least = f"{name} needs at least {METRICS[name].least} images of each kind"
            raise UsageError(f"{least}; {data} has {images}, and {count} are asked for.")


@dataclass(frozen=True)
class Request:
    """What is to be measured, of whichever checkpoint."""

    metrics: tuple[str, ...]
    count: int
    seed: int
    weights: str
    inception_weights: Path | None


def write_evaluation(
    runs: tyro.conf.Positional[tuple[Path, ...]],
    data: str | None = None,
    metrics: Annotated[tuple[str, ...], some_of(METRICS)] = DEFAULT_METRICS,
    count: int = COUNT,
    seed: int = 0,
    weights: Annotated[str, one_of(WEIGHTS)] = "ema",
    inception_weights: Path | None = None,
    cache: Annotated[Path | None, tyro.conf.arg(name="data-options.cache")] = None,
) -> None:
    """Measure how near a run's images are to real ones: a table, and RUN/evaluation.json.

    Args:
        runs: Run folders (their newest checkpoint) or checkpoints (RUN/checkpoints/iteration-…).
        data: The real images: a folder, a .zip, torchvision:NAME, sprites or a pack; by default the run's own.
        metrics: What to measure; fid, kid, is and inception-prdc need torch-fidelity and its weights.
        count: How many real and how many generated images; no more than there are real ones.
        seed: Of the generated images, which are those of gan sample, and of all that is drawn.
        weights: The average of G's weights, or the raw ones.
        inception_weights: File of Inception's weights, for machines without internet.
        cache: Where the packed images are kept; by default where the run keeps them.
    """
    request = Request(metrics, count, seed, weights, inception_weights)
    check_request(request)
    targets: dict[Path, list[Path | None]] = {}
    for path in runs:
        run, which = locate(path)
        targets.setdefault(run, []).append(which)
    if not targets:
        raise UsageError("give a run folder, or several, or checkpoints: gan evaluate RUN --data SOURCE.")
    configs = {run: with_images(read_run(run), data, cache) for run in targets}
    earlier = {run: read_entries(run) for run in targets}  # before the work, so that nothing is done in vain
    first = next(iter(configs.values()))
    accelerator = start_processes(first)
    with Watchdog(accelerator, first.distributed.timeout, "Give the same command again."):
        entries = [
            entry
            for run, config in configs.items()
            for entry in evaluate_run(run, config, targets[run], request, accelerator, earlier[run])
        ]
    if accelerator.is_main_process:
        say(table(entries))
    accelerator.state.destroy_process_group()


def check_request(request: Request) -> None:
    """Raises UsageError for what can be seen to be wrong at once."""
    if request.count < 1 or request.seed < 0:
        raise UsageError(f"--count {request.count} must be at least 1, and --seed {request.seed} at least 0.")
    if not request.metrics:
        raise UsageError(f"--metrics: choose from {', '.join(METRICS)}.")
    if request.inception_weights and not any(METRICS[name].network == "inception" for name in request.metrics):
        wanting = ", ".join(name for name, metric in METRICS.items() if metric.network == "inception")
        raise UsageError(f"--inception-weights is for {wanting}; ask for one of them with --metrics.")


def evaluate_run(run: Path, config: Config, paths: list[Path | None], request: Request, accelerator: Accelerator,
                 earlier: list[Entry]) -> list[Entry]:  # fmt: skip
    """Measure some checkpoints of a run, and write each down as it is done. A collective."""
    pack = one_first(accelerator, lambda: open_pack(config))
    check_agreement(accelerator, config, pack.content)
    evaluator = Evaluator(config, pack, accelerator, request.metrics, request.count, request.seed,
                          request.inception_weights)  # fmt: skip
    fresh: list[Entry] = []
    done: set[str] = set()
    for path in paths:
        found = from_main(accelerator, partial(read_checkpoint, run, path), to_message, from_message)
        assert found is not None
        if found.path.name in done:  # named twice, or also as the newest
            continue
        done.add(found.path.name)
        values = evaluator(load_generator(config, found, request.weights))
        if accelerator.is_main_process:
            fresh += describe(run, found, values, evaluator, request.weights)
            write_entries(run, merged(earlier, fresh))
    return fresh


def describe(
    run: Path, found: Checkpoint, values: dict[str, Values], evaluator: Evaluator, weights: str
) -> list[Entry]:
    """An entry for each metric: of what, which values, and by what protocol."""
    own = found.state["trajectory"].get("images") == evaluator.pack.content
    split = "the images the run was trained on" if own else "other images than the run was trained on"
    return [
        {
            "run": str(run),
            "checkpoint": found.path.name,
            "iteration": found.state["iteration"],
            "metric": name,
            "better": METRICS[name].better,
            "values": numbers,
            "protocol": {"weights": weights, "split": split, **evaluator.protocol(name)},
        }
        for name, numbers in values.items()
    ]


def read_entries(run: Path) -> list[Entry]:
    """What has been measured of a run so far. Raises UsageError."""
    path = run / RESULTS
    try:
        entries = json.loads(path.read_text("utf-8")) if path.exists() else []
        if not isinstance(entries, list) or not all(isinstance(one, dict) and one.keys() >= KEYS for one in entries):
            raise ValueError("not as gan evaluate writes it")
        return entries
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"cannot read {path} ({reason(error)}); mend it or move it away.") from None


def merged(earlier: list[Entry], fresh: list[Entry]) -> list[Entry]:
    """Both; what has been measured again, by the same protocol, once."""

    def what(entry: Entry) -> str:
        return json.dumps([entry[name] for name in ("checkpoint", "metric", "protocol")])

    again = {what(entry) for entry in fresh}
    return [entry for entry in earlier if what(entry) not in again] + fresh


def write_entries(run: Path, entries: list[Entry]) -> None:
    """A disk that refuses is told, and no reason to lose the results on screen."""
    path = run / RESULTS
    try:
        replace_file(path, (json.dumps(entries, indent=1, ensure_ascii=False) + "\n").encode())
    except OSError as error:
        say(f"Warning: {path} could not be written ({reason(error)}); the results are on screen alone.")


def table(entries: list[Entry]) -> str:
    """A row for each checkpoint and a column for each metric (for a mean over scales or parts, not for those), in which
    direction each is better, and what was compared: once, where it was the same for all."""
    rows: dict[str, dict[str, str]] = {}
    for entry in entries:
        row = rows.setdefault(f"{entry['run']}/checkpoints/{entry['checkpoint']}", {})
        arrow = {"lower": "↓", "higher": "↑"}[entry["better"]]
        row |= {f"{name} {arrow}": f"{value:.4g}" for name, value in headlines(entry["values"]).items()}
    names = list(dict.fromkeys(name for row in rows.values() for name in row))
    lines = [["checkpoint", *names], *([label, *(row.get(name, "") for name in names)] for label, row in rows.items())]
    files = ", ".join(dict.fromkeys(f"{entry['run']}/{RESULTS}" for entry in entries))
    alike: dict[str, list[str]] = {}
    for entry in entries:
        alike.setdefault(summary(entry["protocol"]), []).append(entry["run"])
    whose = [f"{', '.join(dict.fromkeys(runs))}: " * (len(alike) > 1) + words for words, runs in alike.items()]
    return "\n".join([aligned(lines), *whose, f"The rest of each protocol: {files}"])


def summary(protocol: dict[str, Any]) -> str:
    """What values that are compared must have in common, in words."""
    return (
        f"{protocol['real']} real images of {protocol['data']} ({protocol['split']}), {protocol['fake']} generated, "
        f"{protocol['weights']} weights, seed {protocol['seed']}."
    )


def headlines(values: Values) -> Values:
    """Those that are not a part of another, as swd_32 is of swd."""
    return {name: value for name, value in values.items() if not any(name.startswith(f"{whole}_") for whole in values)}
