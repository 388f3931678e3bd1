"""Real and generated images side by side: which process computes what, and how the results come together."""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import torch
from accelerate import Accelerator
from PIL import ImageColor
from torch import Tensor, nn
from torch.nn.functional import pad
from tqdm import tqdm

from gan.config import Config
from gan.data.batches import to_device
from gan.processes import on_main, use_all_cores
from gan.trained import block_size

Pixels = Callable[[range], np.ndarray]
"""Which images → uint8 (n, H, W, 3). Asked for those alone that are this process' to compute."""
Values = dict[str, float]


def background(config: Config) -> tuple[int, ...]:
    """The colour behind a run's transparent pixels."""
    return ImageColor.getrgb(config.data_options.background)[:3]


def to_rgb(pixels: np.ndarray, background: tuple[int, ...]) -> np.ndarray:
    """uint8 (N, H, W, 1 | 3 | 4) → (N, H, W, 3): grey three times, or colour over the background by its alpha."""
    if pixels.shape[-1] < 4:
        return np.broadcast_to(pixels, (*pixels.shape[:-1], 3)).copy()
    colour, alpha = pixels[..., :3].astype(np.uint32), pixels[..., 3:].astype(np.uint32)
    mixed = colour * alpha + np.array(background, np.uint32) * (255 - alpha)
    return ((mixed + 127) // 255).astype(np.uint8)


class Shards:
    """`count` images, shared by the processes in whole blocks: the first process has the first of them.

    A block is computed in one go, and is the same block on any number of processes; so, then, are its results. After
    each, `progress` is called.
    """

    def __init__(self, accelerator: Accelerator, count: int, resolution: int,
                 progress: Callable[[], None] = lambda: None):  # fmt: skip
        self.accelerator, self.count, self.progress = accelerator, count, progress
        self.size = block_size(resolution)
        self.share = math.ceil(count / self.size / accelerator.num_processes) * self.size
        first = accelerator.process_index * self.share
        self.rows = range(min(first, count), min(first + self.share, count))
        self.blocks = [range(start, min(start + self.size, count)) for start in self.rows[:: self.size]]

    def map(self, compute: Callable[[range], Tensor], label: str) -> Tensor:
        """What `compute` gives for each block, a row per image: this process' alone, (rows, …)."""
        main, parts = self.accelerator.is_main_process, []
        with tqdm(
            total=len(self.rows), desc=label, unit="image", leave=False, delay=2, disable=not main or None
        ) as bar:
            for block in self.blocks or [range(min(self.size, self.count))]:  # with nothing to do, the shape of a row
                parts.append(compute(block))
                self.progress()
                bar.update(len(block))
        return torch.cat(parts)[: len(self.rows)]

    def gather(self, own: Tensor) -> Tensor:
        """Every process' rows, in order: (count, …), where float64 is at hand. A collective."""
        gathered = own
        if self.accelerator.num_processes > 1:
            padded = pad(own, (0, 0) * (own.dim() - 1) + (0, self.share - len(own)))
            gathered = self.accelerator.gather(padded)[: self.count]
        return gathered if gathered.is_cuda else gathered.cpu()


class Comparison:
    """Equally many real and generated images, and what has been computed from them. Every process asks the same of it.

    `networks`: by name; each maps uint8 (N, H, W, 3) to (N, d). `known`: embeddings of the real images, kept from one
    comparison to the next.
    """

    def __init__(self, shards: Shards, real: Pixels, fake: Pixels, resolution: int, seed: int,
                 networks: Mapping[str, nn.Module], known: dict[str, Tensor]):  # fmt: skip
        self.shards, self.real, self.fake = shards, real, fake
        self.resolution, self.seed, self.networks, self.known = resolution, seed, networks, known

    def embeddings(self, network: str) -> tuple[Tensor, Tensor]:
        """(n, d) of the real and of the generated images, float32. A collective."""
        if network not in self.known:
            self.known[network] = self.embed(network, self.real, "real")
        return self.known[network], self.embed(network, self.fake, "generated")

    def embed(self, network: str, pixels: Pixels, which: str) -> Tensor:
        """Embeddings (N, d) of the images by a network; `which` images, for the progress bar."""
        return self.over(pixels, lambda images, rows: self.networks[network](images), f"{network} network, {which}")

    def over(self, pixels: Pixels, compute: Callable[[Tensor, range], Tensor], label: str) -> Tensor:
        """`compute(images, rows)` over all images: (n, …). A collective."""
        device = self.shards.accelerator.device
        return self.shards.gather(
            self.shards.map(lambda rows: compute(to_device(torch.from_numpy(pixels(rows)), device), rows), label)
        )

    def on_main(self, compute: Callable[[], Values]) -> Values:
        """`compute()` on the main process, with all cores as the others wait; nothing on those. A collective."""
        accelerator = self.shards.accelerator
        with all_cores(accelerator):
            return on_main(accelerator, compute) or {}


@contextmanager
def all_cores(accelerator: Accelerator) -> Iterator[None]:
    """Sums are the same on any number of processes only where they are shared by as many threads."""
    before = torch.get_num_threads()
    if accelerator.is_main_process and accelerator.num_processes > 1:
        use_all_cores(alone=True)
    try:
        yield
    finally:
        torch.set_num_threads(before)
