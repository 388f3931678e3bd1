"""Run folders for tests of what is drawn from them, with a log of any length and any fate and no training; and a look
at what was drawn."""

import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

Entry = dict[str, Any]


def entries(count: int, collapse: float = 2.0, diverge: float = 2.0, every: int = 50) -> list[Entry]:
    """A log of `count` lines; the samples become alike, and the losses large, from those shares of it on."""
    rng = np.random.default_rng(0)
    return [entry(number, count, number / count >= collapse, number / count >= diverge, every, rng)
            for number in range(count)]  # fmt: skip


def entry(number: int, count: int, alike: bool, lost: bool, every: int, rng: np.random.Generator) -> Entry:
    done, share = (number + 1) * every, number / count
    noise = rng.normal(size=14).tolist()
    verdict = "diverged" if lost else "mode collapse" if alike else "starting" if share < 0.05 else "healthy"
    if 0.3 < share < 0.35 and verdict == "healthy":
        verdict = "discriminator winning"
    large = 10 ** (8 * (share - 0.8)) if lost else 1
    return {
        "iteration": done,
        "images": done * 64,
        "epoch": done * 64 / 10_000,
        "loss/d": (0.55 + 0.05 * noise[0]) * large,
        "loss/g": None if lost and share > 0.99 else (1.1 + 0.3 * share + 0.2 * noise[1]) * large,
        "score/real": min(1, max(0, 0.65 + 0.05 * noise[2])),
        "score/fake": min(1, max(0, 0.35 + 0.05 * noise[3])),
        "grad_norm/d": 0.5 * math.exp(0.3 * noise[4]) * large**2,
        "grad_norm/g": 2.0 * math.exp(0.3 * noise[5]) * large**2,
        "health/sign": 0.4 + 0.1 * noise[6],
        "health/accuracy": min(1, 0.8 + 0.05 * noise[7]),
        "health/margin": 1.2 + 0.1 * noise[8],
        "health/gradient_ratio": 4.0,
        "health/diversity": (0.05 if alike else 0.9 * (1 - math.exp(-20 * share))) + 0.02 * noise[9],
        "health/structure": (0.1 if alike else 0.8 * (1 - math.exp(-10 * share))) + 0.02 * noise[10],
        "health/duplicates": 0.95 if alike else max(0, 0.03 * noise[11]),
        "health/saturated": 0.02 * noise[12],
        "health/constant": 0.3 if alike else 0.0,
        "verdict": verdict,
        "perf/images_per_second": 840 + 20 * noise[13],
        **({"eval/swd": 40 * math.exp(-2 * share)} if number % 10 == 9 else {}),
    }


def write_run(folder: Path, log: list[Entry], grids: int = 0, status: Entry | None = None, side: int = 16) -> Path:
    """A run folder with that log; `grids` of 4 × 4 random images of side × side pixels."""
    (folder / "samples").mkdir(parents=True)
    (folder / "log.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in log))
    done = log[-1]["iteration"] if log else 0
    (folder / "status.json").write_text(json.dumps(status or {"state": "running", "iteration": done, "total": 9000}))
    (folder / "config.yaml").write_text("recipe: quickstart\ndata: sprites\nobjective:\n  loss: non-saturating\n")
    (folder / "environment.json").write_text(json.dumps({"python": "3.11.7", "gpus": [], "commit": None}))
    for number in range(grids):
        write_grid(folder / "samples" / f"iteration-{(number + 1) * 50:08d}.png", number, side)
    if grids:
        write_grid(folder / "samples" / "reals.png", 1000, side)
    return folder


def write_grid(path: Path, seed: int, side: int = 16) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (4 * side, 4 * side, 3), np.uint8)
    Image.fromarray(pixels).save(path)


def pixels(png: bytes | None) -> np.ndarray:
    assert png is not None
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)


def count_of(png: bytes | None, colour: str, alpha: float = 1) -> int:
    """How many pixels have a colour, laid over white."""
    level = np.array([int(colour[at : at + 2], 16) for at in (1, 3, 5)])
    return int((np.abs(pixels(png) - (255 + alpha * (level - 255))).max(-1) <= 3).sum())
