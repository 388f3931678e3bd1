"""Draw images from a trained generator: as a picture, as files, as a film, or beside the nearest training images."""

import contextlib
import functools
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import tyro
from einops import rearrange
from PIL import Image
from torch import Tensor
from tqdm import tqdm
from tyro.constructors import PrimitiveConstructorSpec

from gan.config import WEIGHTS, Config, one_of
from gan.data.pack import open_pack
from gan.errors import UsageError, reason
from gan.files import replace_file
from gan.latents import Mix, latent, parse_mix, parse_seeds, truncated, walk
from gan.metrics.comparison import background, to_rgb
from gan.metrics.nearest import FEW, distances_among, nearest_images
from gan.telemetry.animation import FILMS
from gan.telemetry.console import say
from gan.telemetry.grids import grid, to_image, write_picture
from gan.trained import TrainedGenerator, draw, load, with_images

COUNT = 64
"""Of fewer training images, the nearest twentieth says little."""
FRAME_MS = 40
SEEDS = PrimitiveConstructorSpec[tuple[int, ...]](
    nargs="*",
    metavar="{FIRST-LAST,SEED}…",
    instance_from_str=parse_seeds,
    is_instance=lambda value: isinstance(value, tuple),
    str_from_instance=lambda value: [str(seed) for seed in value],
)
MIX = PrimitiveConstructorSpec[tuple[Mix, ...]](
    nargs="*",
    metavar="SUM…",
    instance_from_str=lambda words: tuple(map(parse_mix, words or [""])),
    is_instance=lambda value: isinstance(value, tuple),
    str_from_instance=lambda value: [str(mix.weights) for mix in value],
)


@dataclass(frozen=True)
class Chosen:
    """Images to draw."""

    names: list[str]
    z: Tensor
    """(n, z_dim), float64"""
    parts: list[Tensor]
    """Of images that are sums, the latents (…, z_dim) of what each is a sum of."""

    def within(self, limit: float | None) -> "Chosen":
        """With every number of z kept within ± `limit`; None leaves them as they are."""
        if limit is None:
            return self
        return Chosen(self.names, truncated(self.z, limit), [truncated(part, limit) for part in self.parts])


def write_samples(
    source: tyro.conf.Positional[Path],
    count: int | None = None,
    seed: int | None = None,
    seeds: Annotated[tuple[int, ...], SEEDS] = (),
    mix: Annotated[tuple[Mix, ...], MIX] = (),
    out: Path | None = None,
    each: Path | None = None,
    interpolate: int | None = None,
    steps: int = 24,
    nearest: int | None = None,
    data: str | None = None,
    truncation: float | None = None,
    weights: Annotated[str, one_of(WEIGHTS)] = "ema",
    device: str = "auto",
    cache: Annotated[Path | None, tyro.conf.arg(name="data-options.cache")] = None,
) -> None:
    """Draw new images from a trained generator.

    Args:
        source: Run folder (its newest checkpoint), checkpoint (RUN/checkpoints/iteration-…) or exported folder.
        count: How many images; 64 unless said otherwise.
        seed: Other seeds give other images; 0 unless said otherwise.
        seeds: Instead of those, the first image of each of these seeds: 0-99, or 3,7,20-29.
        mix: Instead of those, sums of seeds' latents, such as 3-5+7 or 0.5*3+0.5*7; a picture shows their parts too.
        out: The picture (.png) or film (.gif or .mp4); by default samples.png or samples.gif.
        each: A folder for the images as files of their own, instead of a picture.
        interpolate: A film: each image passes so many of the chosen ones and goes back to its first.
        steps: Frames from one to the next; 25 are a second.
        nearest: Beside each image, so many of the training images that are nearest to it; the most alike on top.
        data: The training images for --nearest; by default the run's own.
        truncation: Keep every number of z within ± this (in a film, of those that it passes): fewer rare images, less
            variety. 1 is much, 3 hardly any.
        weights: The average of G's weights, or the raw ones.
        device: cpu, cuda, cuda:1, mps, …; auto takes a GPU where there is one.
        cache: Where the packed training images are kept; by default where the run keeps them.
    """
    check_choice(count, seed, seeds, mix, truncation)
    out = check_output(out, each, interpolate, steps, nearest, data)
    G = on_device(load(source, weights), device)
    chosen = choose(G.z_dim, COUNT if count is None else count, seed or 0, seeds, mix).within(truncation)
    if each:
        write_each(G, chosen, each)
    elif interpolate:
        write_film(G, chosen.z, interpolate, steps, out)
    elif nearest:
        save_picture(beside_nearest(G, chosen, nearest, with_images(G.config, data, cache)), out)
    else:
        save_picture(parts_and_sums(G, chosen) if chosen.parts else grid(draw_all(G, chosen.z)), out)
    say(f"{len(chosen.z)} images in {each or out}")


def check_choice(count: int | None, seed: int | None, seeds: Sequence[int], mix: Sequence[Mix],
                 truncation: float | None) -> None:  # fmt: skip
    """Raises UsageError."""
    for name, value, least in (("count", count, 1), ("seed", seed, 0)):
        if value is not None and value < least:
            raise UsageError(f"--{name} {value} must be at least {least}.")
    if ((count, seed) != (None, None)) + bool(seeds) + bool(mix) > 1:
        raise UsageError("--seeds, --mix, and --count with --seed are three ways to choose images; give one of them.")
    if truncation is not None and not truncation > 0:
        raise UsageError(f"--truncation {truncation} must be above 0.")


def check_output(out: Path | None, each: Path | None, interpolate: int | None, steps: int, nearest: int | None,
                 data: str | None) -> Path:  # fmt: skip
    """Where a picture or film goes. Raises UsageError."""
    given = {"--each": each, "--interpolate": interpolate, "--nearest": nearest}
    if len(asked := [name for name, value in given.items() if value is not None]) > 1:
        raise UsageError(f"{' and '.join(asked)} exclude each other.")
    if data is not None and nearest is None:
        raise UsageError("--data names the training images for --nearest; give that too.")
    if each and out:
        raise UsageError("--each FOLDER writes files of their own, --out one picture; give one of them.")
    if interpolate is not None and (interpolate < 2 or steps < 1):
        raise UsageError(f"--interpolate {interpolate} must be at least 2, and --steps {steps} at least 1.")
    if nearest is not None and nearest < 1:
        raise UsageError(f"--nearest {nearest} must be at least 1.")
    out = out or Path("samples.gif" if interpolate else "samples.png")
    allowed = list(FILMS) if interpolate else [".png"]
    if out.suffix.lower() not in allowed:
        raise UsageError(f"--out {out} must end in {' or '.join(allowed)}.")
    return out


def on_device(G: TrainedGenerator, name: str) -> TrainedGenerator:
    """Raises UsageError."""
    try:
        auto = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
        device = torch.device(name) if name != "auto" else auto or torch.device("cpu")
        G(torch.zeros(1, G.to(device).z_dim, device=device)).cpu()
        return G
    except (RuntimeError, AssertionError, TypeError, NotImplementedError, ImportError) as error:
        raise UsageError(f"--device {name} does not work here: {str(error).splitlines()[0]}") from None


def choose(z_dim: int, count: int, seed: int, seeds: Sequence[int], mix: Sequence[Mix]) -> Chosen:
    """Sums of seeds, or the first image of each of several seeds, or the first `count` images of one."""
    if mix:
        parts = [torch.stack([latent(seed, 0, z_dim) for seed in one.weights]) for one in mix]
        names = [f"mix{index}" for index in range(len(mix))]
        return Chosen(names, torch.stack([one.latent(z_dim) for one in mix]), parts)
    wanted = [(seed, 0) for seed in seeds] or [(seed, index) for index in range(count)]
    names = [f"seed{seed}-{index:05d}" for seed, index in wanted]
    return Chosen(names, torch.stack([latent(seed, index, z_dim) for seed, index in wanted]), [])


def blocks(G: TrainedGenerator, z: Tensor) -> Iterator[np.ndarray]:
    """The images of latents (n, z_dim) a block at a time, uint8 (…, H, W, C), with a progress bar."""
    with tqdm(total=len(z), desc="Drawing", unit="image", delay=2, leave=False, disable=None) as bar:
        for block in draw(G, z):
            yield block
            bar.update(len(block))


def draw_all(G: TrainedGenerator, z: Tensor) -> np.ndarray:
    """uint8 (n, H, W, C)."""
    return np.concatenate(list(blocks(G, z)))


def write_each(G: TrainedGenerator, chosen: Chosen, folder: Path) -> None:
    """A PNG in the folder for each latent."""
    with written_into(folder):
        for name, pixels in zip(chosen.names, itertools.chain.from_iterable(blocks(G, chosen.z)), strict=True):
            write_picture(to_image(pixels), folder / f"{name}.png")


def write_film(G: TrainedGenerator, z: Tensor, stops: int, steps: int, out: Path) -> None:
    """As many images side by side as `stops` goes into those chosen, each on a walk through its own."""
    if len(z) % stops:
        raise UsageError(f"--interpolate {stops} needs a multiple of {stops} images; {len(z)} are chosen.")
    path = walk(rearrange(z, "(n stops) d -> stops n d", stops=stops), steps)  # (frames, n, z_dim)
    images = itertools.chain.from_iterable(blocks(G, path.flatten(0, 1)))
    frames = (grid(np.stack(list(itertools.islice(images, path.shape[1])))) for _ in path)
    film = FILMS[out.suffix.lower()](frames, FRAME_MS)
    with written_into(out.parent):
        replace_file(out, film)


def parts_and_sums(G: TrainedGenerator, chosen: Chosen) -> Image.Image:
    """A row for each sum: its parts, white, and last what they come to."""
    columns = max(map(len, chosen.parts)) + 1
    drawn = iter(draw_all(G, torch.cat([*chosen.parts, chosen.z])))
    white = np.full((G.resolution, G.resolution, G.channels), 255, np.uint8)
    tiles = np.stack([[next(drawn) for _ in part] + [white] * (columns - len(part)) for part in chosen.parts])
    tiles[:, -1] = list(drawn)
    return grid(tiles.reshape(-1, *white.shape), columns)


def beside_nearest(G: TrainedGenerator, chosen: Chosen, k: int, config: Config) -> Image.Image:
    """A row for each image: itself, white, and the `k` training images nearest to it; the most alike on top."""
    real, ground = open_pack(config).images, background(config)
    if len(real) <= k:
        raise UsageError(f"--nearest {k} must be below the number of training images, {len(real)}.")
    drawn = draw_all(G, chosen.z)
    over_background = functools.partial(to_rgb, background=ground)
    flips = {2: config.augment.flip, 1: config.augment.flip_vertical}
    axes = [axis for axis, probability in flips.items() if probability > 0]  # G has seen both
    distances, numbers = nearest_images(drawn, real, k, over_background, axes)
    say(likeness(distances[:, 0], distances_among(real, over_background, axes)))
    order = distances[:, 0].argsort(stable=True)
    white = np.full_like(drawn[:1], 255)
    rows = [np.concatenate([drawn[row][None], white, real[numbers[row].numpy()]]) for row in order]
    return grid(np.concatenate(rows), k + 2)


def likeness(distances: Tensor, among: Tensor) -> str:
    """In words: how near images are to training images (n,), and those to each other (m,)."""
    text = f"From an image to the nearest training image: {distances.median():.1f} of 255 levels (median)."
    if len(among) < FEW:
        return text
    close = int((distances < among.quantile(0.05)).sum())
    return (f"{text} From a training image to the nearest other one: {among.median():.1f}. Nearer than 19 in 20 "
            f"training images are to another: {close} of {len(distances)} images; where their rows show one image "
            "again and again, it has been learnt by heart.")  # fmt: skip


@contextlib.contextmanager
def written_into(folder: Path) -> Iterator[None]:
    """Make the folder. Raises UsageError for what the disk refuses."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise UsageError(f"cannot write into {folder}: {reason(error)}; choose another place.") from None


def save_picture(picture: Image.Image, out: Path) -> None:
    """Write it, with the folders above it. Raises UsageError where that cannot be."""
    with written_into(out.parent):
        write_picture(picture, out)
