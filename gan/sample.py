"""Draw images from a trained run."""

import os
from pathlib import Path
from typing import Annotated

import torch
import tyro
from torch import Tensor, nn

from gan import checkpoint
from gan.checkpoint import Checkpoint
from gan.config import WEIGHTS, Config, one_of, read_recipe
from gan.errors import UsageError
from gan.networks import NETWORKS
from gan.randomness import latents
from gan.telemetry.grids import grid, to_uint8, write_picture

BATCH = 64


def sample(path: Path, count: int, seed: int, weights: str = "ema") -> Tensor:
    """(count, C, H, W) in [−1, 1] from G of a run's newest checkpoint, or of a checkpoint, on the CPU.

    Image i depends on (seed, i) alone: asking for more images leaves the first ones as they were.
    """
    run, which = locate(path)
    config = read_run(run)
    G = load_generator(config, read_checkpoint(run, which), weights)
    rows = [range(start, min(start + BATCH, count)) for start in range(0, count, BATCH)]
    return torch.cat([draw_images(G, config, seed, part) for part in rows])


def locate(path: Path) -> tuple[Path, Path | None]:
    """A run folder, or a checkpoint in one → (run, checkpoint; None for the newest intact). Raises UsageError."""
    if (path / "manifest.json").exists() and (path / "../../config.yaml").exists():
        return Path(os.path.normpath(path / "../..")), path
    if not (path / "config.yaml").exists():
        raise UsageError(f"{path} is neither a run folder nor a checkpoint in one.")
    if not checkpoint.listed(path / "checkpoints"):
        raise UsageError(f"{path} has no checkpoint yet.")
    return Path(os.path.normpath(path)), None


def read_run(run: Path) -> Config:
    """The settings of a run folder. Raises UsageError."""
    if not (run / "config.yaml").exists():
        raise UsageError(f"{run} is not a run folder: it has no config.yaml.")
    return read_recipe(str(run / "config.yaml"))


def read_checkpoint(run: Path, path: Path | None) -> Checkpoint:
    """That one, or the run's newest intact one. Raises UsageError or RunError."""
    found = checkpoint.load(path) if path else checkpoint.load_newest(run / "checkpoints")
    if found is None:
        raise UsageError(f"{run} has no intact checkpoint.")
    return found


def load_generator(config: Config, found: Checkpoint, weights: str = "ema") -> nn.Module:
    """G of a checkpoint, on the CPU: its average, or the raw weights."""
    G = NETWORKS[config.model.network](config)[0].to(getattr(torch, config.dtype)).eval()
    G.load_state_dict(found.tensors["generator_ema" if weights == "ema" else "generator"])
    return G


@torch.no_grad()
def draw_images(G: nn.Module, config: Config, seed: int, rows: range) -> Tensor:
    """Images number `rows` of a seed: (n, C, H, W) in [−1, 1], where G is."""
    z = torch.cat([latents(seed, "sample", index, 1, config.model.z_dim) for index in rows])
    return G(z.to(getattr(torch, config.dtype)).to(next(G.parameters()).device))[0]


def walk(stops: Tensor, steps: int) -> Tensor:
    """Latents (stops, n, z_dim) → (stops × steps, n, z_dim): from each stop to the next and back to the first, on great
    circles, as normal latents of many numbers lie close to a sphere (White 2016, https://arxiv.org/abs/1609.04468,
    section 2.1; Shoemake 1985, https://doi.org/10.1145/325165.325242)."""
    t = torch.linspace(0, 1, steps + 1, dtype=stops.dtype, device=stops.device)[:-1, None, None]
    return torch.cat([slerp(a, b, t) for a, b in zip(stops, stops.roll(-1, 0), strict=True)])


def slerp(a: Tensor, b: Tensor, t: Tensor) -> Tensor:
    """From a (…, d) at t = 0 to b at t = 1, with even steps in angle."""
    angle = torch.nn.functional.cosine_similarity(a, b, dim=-1).clamp(-1, 1).acos().unsqueeze(-1)
    near = angle.sin() < 1e-6  # a straight line there, rather than 0 / 0
    curve = (((1 - t) * angle).sin() * a + (t * angle).sin() * b) / torch.where(near, 1, angle.sin())
    return torch.where(near, torch.lerp(*torch.broadcast_tensors(a, b, t)), curve)


def write_samples(
    run: tyro.conf.Positional[Path],
    count: int = 64,
    out: Path = Path("samples.png"),
    seed: int = 0,
    weights: Annotated[str, one_of(WEIGHTS)] = "ema",
) -> None:
    """Draw new images from a run's generator and save them as one picture.

    Args:
        run: Run folder (its newest checkpoint) or checkpoint (RUN/checkpoints/iteration-…).
        count: How many images.
        out: Where the picture goes (PNG).
        seed: Other seeds give other images.
        weights: The average of G's weights, or the raw ones.
    """
    if count < 1 or seed < 0:
        raise UsageError(f"--count {count} must be at least 1, and --seed {seed} at least 0.")
    pixels = to_uint8(sample(run, count, seed, weights))
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_picture(grid(pixels), out)
    except OSError as error:
        raise UsageError(f"cannot write {out}: {error.strerror}. Choose another place with --out.") from None
    print(f"{count} images in {out}")
