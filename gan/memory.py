"""How much memory training needs, counted without training, and what to try when there is not enough."""

import weakref
from collections.abc import Callable, Mapping
from typing import Any

import psutil
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from gan.config import Config
from gan.data.batches import pyramid
from gan.networks import NETWORKS
from gan.networks.dcgan import Discriminator, Generator
from gan.objectives import LOSSES
from gan.steps import CriticStep, frozen, generator_loss

AMP_DTYPES = {"no": None, "fp16": torch.float16, "bf16": torch.bfloat16}


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of the tensors made inside and still alive, and remembers the `peak`."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.peak = 0
        self.known: weakref.WeakSet[Any] = weakref.WeakSet()

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor) and (storage := tensor.untyped_storage()) not in self.known:
                self.known.add(storage)
                self.now += storage.nbytes()
                weakref.finalize(storage, self.release, storage.nbytes())
                self.peak = max(self.peak, self.now)
        return result

    def release(self, count: int) -> None:
        """So many bytes were freed."""
        self.now -= count


def training_bytes(config: Config, rows: int, precision: str = "no") -> int:
    """Peak bytes of tensors in a training iteration on `rows` images at a time: weights, gradients, optimizer state,
    the average, and what the two backward passes need. Counted on tensors without content, so it takes no memory.

    Of at least two images, as a dense stem's BatchNorm can do nothing with one. Not in it: what the CUDA context (some
    hundred MB) and the convolution algorithms take for themselves.
    """
    dtype, rows = AMP_DTYPES[precision], max(rows, 2)
    with FakeTensorMode(), LiveBytes() as live, torch.autocast("cpu", dtype, enabled=dtype is not None):
        G, D = NETWORKS[config.model.network](config)
        state = [torch.zeros_like(parameter) for module in (G, D) for parameter in module.parameters() for _ in "mv"]
        average = [torch.zeros_like(parameter) for parameter in G.parameters()]
        side = config.resolution
        real = torch.empty(rows, config.channels, side, side)
        iterate(G, D, config, real)
        del state, average
    return live.peak * (2 if config.dtype == "float64" else 1)


def iterate(G: Generator, D: Discriminator, config: Config, finest: Tensor) -> None:
    """The forward and backward passes of one training iteration, for their tensors only."""
    count, loss = len(finest), LOSSES[config.objective.loss]
    real = pyramid(finest, G.scales)
    fake = [image.float() for image in G(torch.empty(count, config.model.z_dim))]  # as Accelerate gives them back
    step = CriticStep(D, config.objective)
    step(real, fake, torch.empty(count, step.uniforms))[0].backward()
    D.zero_grad()
    with frozen(D):
        looked_at = real if loss.relative else None
        generator_loss(D, fake, looked_at, torch.empty(count, D.uniforms), loss).backward()
    G.zero_grad()


def advice(config: Config, processes: int, precision: str, device: torch.device) -> str:
    """What to say when the memory is full: which batch size would fit."""
    rows = config.batch_size // processes // config.accumulation
    room = torch.cuda.get_device_properties(device).total_memory if device.type == "cuda" else None
    full = f"out of memory: {rows} images at a time need {gib(training_bytes(config, rows, precision))} GiB and more."
    least = 1 if processes * config.accumulation > 1 else 2  # images: no batch has fewer than two
    smaller = [count for count in range(rows // 2, least - 1, -1) if rows % count == 0]
    fitting = [count for count in smaller if not room or training_bytes(config, count, precision) <= room]
    if not fitting:
        return f"{full} No smaller batch would fit; lower --model.width or --resolution."
    count = fitting[0]
    fits = f"about {gib(training_bytes(config, count, precision))} GiB{f' of {gib(room)}' if room else ''}"
    others = f"the same batch in parts with --accumulation {rows // count * config.accumulation}"
    if room and precision == "no":
        others += ", or --mixed_precision bf16 or fp16 where the GPU is made for it"
    if room and config.data_options.resident != "disk":
        others += "; --data-options.resident disk keeps the images out of its memory"
    return f"{full} Try --batch-size {count * processes * config.accumulation} ({fits}), or {others}."


def gib(count: int | float) -> str:
    """Bytes, in GiB."""
    return f"{count / 2**30:.1f}"


def amount(count: int) -> str:
    """Bytes in the larger of GiB and MiB of which there is at least one."""
    return f"{gib(count)} GiB" if count >= 2**30 else f"{count / 2**20:.1f} MiB"


def memory_of(device: torch.device) -> int:
    """Bytes of memory: all of a GPU's, or what programs can still have of the machine's."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    return psutil.virtual_memory().available


def is_out_of_memory(error: BaseException) -> bool:
    """As PyTorch, cuBLAS, cuDNN and NCCL, and the CPU's allocator put it."""
    known = ("out of memory", "ALLOC_FAILED", "ALLOCATION_FAILED", "can't allocate memory")
    return any(words in str(error) for words in known)
