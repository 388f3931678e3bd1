"""Pack → training batches: which rows, gathered, moved and scaled to [−1, 1]."""

from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from einops import rearrange
from torch import Tensor
from torch.nn.functional import avg_pool2d

from gan.errors import UsageError
from gan.networks import Images
from gan.randomness import image_order


class Batches:
    """This process' share of every global batch, as a function of the position in the training stream."""

    def __init__(self, images: np.ndarray, batch_size: int, seed: int, rank: int, processes: int,
                 device: torch.device, dtype: torch.dtype, resident: bool = False,
                 prefetch: bool = False):  # fmt: skip
        """`images`: uint8 (N, H, W, C); `resident`: keep them all in the device's memory; `prefetch`: where they are
        not, read the next batch in a thread while this one is used."""
        self.count, self.batch_size, self.seed = len(images), batch_size, seed
        self.images = copy_to(device, images) if resident else images
        share = batch_size // processes
        self.rows = slice(rank * share, (rank + 1) * share)
        self.device, self.dtype = device, dtype
        self.thread = ThreadPoolExecutor(1, "batches") if prefetch and not resident else None
        self.ahead: tuple[int, Future[np.ndarray]] | None = None
        """The position of the batch that is being read, and its pixels."""

    def at(self, position: int) -> Tensor:
        """The images at positions position … position + batch_size − 1, this process' rows of them."""
        if isinstance(self.images, Tensor):
            pixels = self.images[to_device(torch.from_numpy(self.order(position)), self.device)]
        else:
            pixels = to_device(torch.from_numpy(self.read_ahead(position)), self.device)
        return to_unit_range(pixels, self.dtype)

    def order(self, position: int) -> np.ndarray:
        """int64: the numbers of this process' images, of the batch at this position."""
        return image_order(self.seed, self.count, position, self.batch_size)[self.rows]

    def read(self, position: int) -> np.ndarray:
        """uint8 (rows, H, W, C), gathered from the pack."""
        assert isinstance(self.images, np.ndarray)
        return self.images[self.order(position)]

    def read_ahead(self, position: int) -> np.ndarray:
        """The pixels at `position`, from the thread if it has been sent for them; send it for those that follow."""
        found = self.ahead and self.ahead[0] == position
        pixels = self.ahead[1].result() if self.ahead and found else self.read(position)
        following = position + self.batch_size
        if self.thread and (self.ahead is None or self.ahead[0] != following):
            self.ahead = following, self.thread.submit(self.read, following)
        return pixels


def is_resident(wish: str, device: torch.device, size_bytes: int) -> bool:
    """Whether the images are to be kept on the device, by `--data-options.resident`. Raises UsageError."""
    if wish == "gpu" and device.type != "cuda":
        raise UsageError(f"--data-options.resident gpu needs a GPU, and this run is on the {device.type}; use auto.")
    if wish == "auto" and device.type == "cuda":
        return size_bytes <= torch.cuda.mem_get_info(device)[0] / 4
    return wish == "gpu"


def copy_to(device: torch.device, images: np.ndarray, block: int = 4096) -> Tensor:
    """All images in the device's memory; a block at a time passes through the host's."""
    copy = torch.empty(images.shape, dtype=torch.uint8, device=device)
    for start in range(0, len(images), block):
        copy[start : start + block] = torch.from_numpy(np.array(images[start : start + block]))
    return copy


def to_device(values: Tensor, device: torch.device) -> Tensor:
    """From the host, without waiting for what the device is doing."""
    return values.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else values.to(device)


def to_unit_range(pixels: Tensor, dtype: torch.dtype) -> Tensor:
    """uint8 (N, H, W, C) → floating (N, C, H, W) in [−1, 1], a channels-last view: no pixel moves."""
    return rearrange(pixels, "n h w c -> n c h w").to(dtype).div_(127.5).sub_(1)


def pyramid(finest: Tensor, scales: int) -> Images:
    """(N, C, H, W) → that and each coarser scale, every one the mean of 2×2 pixels of the one before."""
    images = [finest]
    while len(images) < scales:
        images.append(avg_pool2d(images[-1], 2))
    return images
