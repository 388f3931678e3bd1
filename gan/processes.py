"""The processes of a run: started by `accelerate launch`, checked, and made to agree before anything is trained."""

import contextlib
import ctypes
import hashlib
import os
import re
import socket
import time
import warnings
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

import torch
import torch.distributed.nn.functional  # before there is a process group, which its default arguments would keep alive
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, InitProcessGroupKwargs, ProjectConfiguration
from accelerate.utils.dataclasses import DDPCommunicationHookType
from torch import Tensor, distributed

from gan.config import Config, flags
from gan.data.packing import available_cores
from gan.errors import RunError, UsageError, UserFault
from gan.telemetry.console import say

Result = TypeVar("Result")

ONE_MODEL_ONLY = {"FSDP": "FSDP", "DEEPSPEED": "DeepSpeed", "MEGATRON_LM": "Megatron-LM",
                  "PARALLELISM_CONFIG": "Accelerate's parallelism_config"}  # fmt: skip
PRECISIONS = ("no", "bf16", "fp16")
MPI_SIZES = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE")
PLACES = {"data", "out", "init-from", "recipe", "resume", "data-options.cache", "data-options.workers"}
"""Settings that may differ from machine to machine."""
OLD_CARDS = "pip install 'torch<2.15' torchvision --index-url https://download.pytorch.org/whl/cu126"
"""PyTorch 2.14 is the last with builds for CUDA 12.6, and those are the last with code for cards before Turing:
https://dev-discuss.pytorch.org/t/3432."""
MEETING = timedelta(minutes=10)
"""How long the first processes wait for the last one to start."""


def start_processes(config: Config) -> Accelerator:
    """Accelerate with this machine's devices; precision and processes are as `accelerate launch` said."""
    check_launch(os.environ, torch.cuda.device_count())
    warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated")  # Accelerate 1.15 has no other name for it
    accelerator = Accelerator(
        cpu=not torch.accelerator.is_available(),
        log_with=None if config.track.with_ == "none" else config.track.with_,
        project_config=ProjectConfiguration(logging_dir=str(config.out or ".")),
        kwargs_handlers=[
            InitProcessGroupKwargs(timeout=MEETING),
            DistributedDataParallelKwargs(
                broadcast_buffers=False,  # BatchNorm's statistics are those of all processes already
                gradient_as_bucket_view=True,  # gradients are not held twice
                comm_hook=DDPCommunicationHookType(config.distributed.compression),
            ),
        ],
    )
    check_processes(config, accelerator)
    if accelerator.device.type != "cuda":
        use_all_cores()
        keep_memory()
    elif torch.version.hip is None:  # AMD's builds name their architectures otherwise
        name, capability = torch.cuda.get_device_name(), torch.cuda.get_device_capability()
        check_gpu(name, capability, torch.cuda.get_arch_list(), accelerator.mixed_precision)
    torch.backends.cudnn.benchmark = config.speed.autotune
    torch.backends.cudnn.deterministic = not config.speed.autotune  # the same command gives the same weights
    torch.backends.cudnn.allow_tf32 = config.speed.tf32
    return accelerator


def check_launch(environment: Mapping[str, str], gpus: int) -> None:
    """Refuse what Accelerate would start wrongly or wait for without end. Raises UsageError.

    `gpus`: how many this machine has.
    """
    for variable, name in ONE_MODEL_ONLY.items():
        if environment.get(f"ACCELERATE_USE_{variable}", "false").lower() in ("true", "1"):
            raise UsageError(
                f"{name} shards one model per run, and a GAN has two: use a configuration of accelerate_configs/, or "
                "answer No to FSDP, DeepSpeed and the like in accelerate config."
            )
    if (mixed := environment.get("ACCELERATE_MIXED_PRECISION", "no")) not in PRECISIONS:
        raise UsageError(f"--mixed_precision {mixed}: choose {', '.join(PRECISIONS)}.")
    here = int(environment.get("LOCAL_WORLD_SIZE", 1))
    if here > gpus > 0:
        raise UsageError(
            f"{here} processes were started on this machine, but it has {gpus} GPUs: --num_processes {gpus}."
        )
    if {"RANK", "LOCAL_RANK", *MPI_SIZES} & environment.keys():
        return
    if int(environment.get("WORLD_SIZE", 1)) > 1:
        raise UsageError(
            f"WORLD_SIZE is {environment['WORLD_SIZE']}, but nothing tells this process which of them it is (RANK). "
            "Start the run with accelerate launch, or unset WORLD_SIZE."
        )
    several = "multi_gpu" if gpus else "cpu_2"
    if {"ACCELERATE_MIXED_PRECISION", "MASTER_ADDR", "MASTER_PORT"} <= environment.keys():
        raise UsageError(
            "accelerate launch was asked for several processes but has started one, as it does without --multi_gpu, "
            f"with --cpu and with MULTI_CPU. Use --config_file accelerate_configs/{several}.yaml --num_processes N."
            " (For one process, unset MASTER_ADDR.)"
        )


def check_processes(config: Config, accelerator: Accelerator) -> None:
    """Refuse a process group that is not the one that was asked for. Raises UsageError."""
    processes, wanted = accelerator.num_processes, int(os.environ.get("WORLD_SIZE", 1))
    if wanted != processes:
        raise UsageError(
            f"WORLD_SIZE is {wanted}, but the process group has {processes}: every process would train a run of its "
            "own. Start all of them with accelerate launch and one of accelerate_configs/."
        )
    if accelerator.gradient_accumulation_steps != 1:
        raise UsageError("gradient accumulation is set with --accumulation N, not through Accelerate's environment.")
    if config.dtype == "float64" and accelerator.mixed_precision != "no":
        raise UsageError(f"--dtype float64 and mixed precision {accelerator.mixed_precision} exclude each other.")
    if accelerator.mixed_precision == "fp16" and precision(accelerator) == "no" and accelerator.is_main_process:
        say(f"fp16 needs a GPU; on this {accelerator.device.type} the run is in float32.")
    here, cores = int(os.environ.get("LOCAL_WORLD_SIZE", 1)), available_cores()
    if accelerator.device.type == "cpu" and here > cores and accelerator.is_main_process:
        say(f"Warning: torch finds no GPU, and {here} processes share {cores} CPU core(s): fewer would be faster. gan "
            "doctor says what there is.")  # fmt: skip


def check_gpu(name: str, capability: tuple[int, int], architectures: list[str], mixed_precision: str) -> None:
    """Refuse a GPU that this build of PyTorch has no code for, and fp16 where it is known to fail. Raises UsageError.

    `architectures` is torch.cuda.get_arch_list(): sm_86 is code for capability 8.6 and later 8.x; compute_90 is
    compiled on the spot for 9.0 and everything later; a letter behind (sm_90a) means that very capability only.
    """
    usable = False
    for kind, major, minor, exact in re.findall(r"(sm|compute)_(\d+)(\d)([a-z]?)", " ".join(architectures)):
        built = (int(major), int(minor))
        later = built <= capability and (kind == "compute" or built[0] == capability[0])
        usable |= built == capability if exact else later
    if not usable:
        older = f" For the GTX 10xx and older: {OLD_CARDS}" if capability < (7, 5) else ""
        raise UsageError(
            f"this PyTorch ({torch.__version__}) has no code for {name} (capability {capability[0]}.{capability[1]}), "
            f"only for {', '.join(architectures)}: install a build that has.{older}"
        )
    if mixed_precision == "fp16" and re.search(r"GTX 16\d\d", name):
        raise UsageError(
            f"{name} gives NaN or black images in fp16, a known fault of the GTX 16xx; use "
            "--config_file accelerate_configs/gtx.yaml or --mixed_precision no."
        )
    if mixed_precision == "bf16" and capability < (8, 0):
        say(f"{name} has no bf16 in hardware; it works, but slower than --mixed_precision no.")


def recommended(cards: list[tuple[str, tuple[int, int]]]) -> tuple[str, str, str]:
    """(configuration, precision, why) for GPUs of these names and capabilities, all of which a run is to use."""
    if not cards:
        return "cpu.yaml", "no", "there is no GPU"
    lowest = min(capability for _, capability in cards)
    if lowest >= (8, 0):
        mixed, why = "bf16", "Ampere and newer have it in hardware"
    elif lowest >= (7, 0) and not any("GTX" in name for name, _ in cards):
        mixed, why = "fp16", "Volta and Turing have it in hardware, and no bf16"
    else:
        mixed, why = "no", "GTX cards, and what is older than Volta, are slow or wrong in fp16 and have no bf16"
    if len(cards) > 1:
        return f"multi_gpu{'' if mixed == 'no' else f'_{mixed}'}.yaml --num_processes {len(cards)}", mixed, why
    return ("gtx.yaml" if mixed == "no" else f"single_gpu.yaml --mixed_precision {mixed}"), mixed, why


def own_cards() -> list[tuple[str, tuple[int, int]]]:
    """(name, capability) of each GPU of this machine that torch can use."""
    every = range(torch.cuda.device_count())
    return [(torch.cuda.get_device_name(index), torch.cuda.get_device_capability(index)) for index in every]


def use_all_cores(alone: bool = False) -> None:
    """Share the cores among this machine's processes, or take them `alone` while the others wait. accelerate launch
    sets OMP_NUM_THREADS=1 when nobody asks for another number; that would leave the other cores idle."""
    if os.environ.get("OMP_NUM_THREADS", "1") == "1":
        sharing = 1 if alone else int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        torch.set_num_threads(max(1, available_cores() // sharing))


def keep_memory(threshold: int = 1 << 30) -> None:
    """Let the C library keep the memory of tensors up to `threshold` bytes that are gone, for the next ones; by itself
    it gives large ones back to the system, which clears every page of them anew in every iteration (glibc alone)."""
    with contextlib.suppress(AttributeError, OSError, TypeError):
        library = ctypes.CDLL(None)
        if not library.mallopt(-3, threshold):  # M_MMAP_THRESHOLD
            library.mallopt(-3, 32 << 20)  # the most that older glibcs take
        library.mallopt(-1, 2 * threshold - 1)  # M_TRIM_THRESHOLD


def precision(accelerator: Accelerator) -> str:
    """The precision of the forward passes as it really is: no, fp16 or bf16. Accelerate ignores fp16 on a CPU."""
    return accelerator.mixed_precision if accelerator.native_amp else "no"


def layout_of(config: Config, accelerator: Accelerator) -> torch.memory_format:
    """channels_last or contiguous_format: as `--speed.channels-last` says, else channels_last where every process'
    device prefers it, as DDP wants one layout. A collective."""
    last = config.speed.channels_last
    if last is None:
        last = prefers_channels_last(accelerator.device, precision(accelerator) != "no", config.speed.tf32)
        if accelerator.num_processes > 1:
            last = bool(accelerator.gather(torch.tensor([last], dtype=torch.uint8, device=accelerator.device)).all())
    return torch.channels_last if last else torch.contiguous_format


def prefers_channels_last(device: torch.device, mixed: bool, tf32: bool) -> bool:
    """Whether convolutions are faster where a pixel's channels lie side by side: on CPUs and tensor cores. Without
    those, in float32, a V100 took 2.76 s so and 1.68 s otherwise (https://github.com/pytorch/pytorch/issues/44943)."""
    if device.type != "cuda":
        return True
    return (mixed or tf32) and torch.cuda.get_device_capability(device) >= ((7, 0) if mixed else (8, 0))


def check_batch(config: Config, processes: int, images: int) -> None:
    """Refuse a batch that the images cannot fill or the processes cannot share. Raises UsageError."""
    batch, parts = config.batch_size, processes * config.accumulation
    if images < batch:
        raise UsageError(
            f"{config.data} has {images} images, fewer than one batch of {batch}; add images or lower --batch-size."
        )
    if batch % parts:
        nearest = max(min(round(batch / parts), images // parts), 1) * parts
        way = f"the nearest that can is {nearest}" if nearest <= images else f"{images} images are too few for so many"
        raise UsageError(
            f"--batch-size {batch} cannot be shared by {processes} processes × {config.accumulation} accumulation "
            f"steps; {way}."
        )
    model = config.model
    if batch == parts and model.stem == "dense" and model.norm_g == "batch" and not model.sync_batchnorm:
        raise UsageError(
            f"--model.stem dense with each process' own BatchNorm needs two images at once: --batch-size {2 * parts}."
        )


def check_agreement(accelerator: Accelerator, config: Config, images: str) -> None:
    """Refuse a run whose processes have different code, settings or images. `images` is the pack's checksum.

    A collective; raises UsageError on every process, naming the first that differs from the main one and in what.
    """
    if accelerator.num_processes == 1:
        return
    stages = [
        {"code of gan": code_version(), "version of torch": torch.__version__},
        {"--mixed_precision": precision(accelerator)}
        | {f"--{name}": str(value) for name, value in flags(config) if name not in PLACES},
        {"images (another data set, or files that differ)": images},
    ]
    for facts in stages:  # one after the other, since other code may have another number of settings
        hashes = [int.from_bytes(hashlib.sha256(os.fsencode(value)).digest()[:7], "big") for value in facts.values()]
        table = accelerator.gather(torch.tensor([hashes], device=accelerator.device))  # (processes, facts)
        for process, row in enumerate(table.tolist()):
            if differing := [
                name for name, mine, main in zip(facts, row, table[0].tolist(), strict=True) if mine != main
            ]:
                raise UsageError(
                    f"process {process} differs from process 0 in its {', '.join(differing)}. Start every machine with "
                    "the same command, code and images.",
                    agreed=True,
                )


def code_version() -> str:
    """A checksum of the sources of this package."""
    package = Path(__file__).parent
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        digest.update(path.relative_to(package).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()


def together(accelerator: Accelerator, act: Callable[[], Result]) -> Result:
    """`act()` on every process. A collective: a UserFault of any of them is raised on all, so none waits for ever."""
    result, fault = None, None
    try:
        result = act()
    except UserFault as error:
        fault = error
    if accelerator.num_processes > 1:
        own = f"process {accelerator.process_index} ({socket.gethostname()}): {fault}" if fault else ""
        others = [text for text in gather_texts(accelerator, own) if text]
        fault = fault or (RunError(others[0]) if others else None)
    if fault:
        fault.agreed = True
        raise fault
    return result  # type: ignore[return-value]


def on_main(accelerator: Accelerator, act: Callable[[], Result]) -> Result | None:
    """`act()` on the main process; None on the others. A collective; a UserFault is raised on all."""
    return together(accelerator, act if accelerator.is_main_process else lambda: None)


def one_first(accelerator: Accelerator, act: Callable[[], Result]) -> Result:
    """`act()` on one process of each machine, then on the others, which find what it has left on the disk. A
    collective; a UserFault is raised on all."""
    first = accelerator.is_local_main_process
    done = together(accelerator, act if first else lambda: None)
    rest = together(accelerator, (lambda: None) if first else act)
    return done if first else rest  # type: ignore[return-value]


def from_main(
    accelerator: Accelerator,
    produce: Callable[[], Result],
    encode: Callable[[Result], bytes],
    decode: Callable[[bytes], Result],
) -> Result:
    """What `produce()` gives on the main process, on every process. A collective; a UserFault is raised on all."""
    main, result = accelerator.is_main_process, on_main(accelerator, produce)
    if accelerator.num_processes == 1:
        return result  # type: ignore[return-value]
    content = encode(result) if main else b""  # type: ignore[arg-type]
    size = torch.tensor(len(content), device=accelerator.device)
    distributed.broadcast(size, 0)
    message = as_tensor(content, int(size)).to(accelerator.device)
    distributed.broadcast(message, 0)
    return result if main else decode(message.cpu().numpy().tobytes())  # type: ignore[return-value]


def gather_texts(accelerator: Accelerator, text: str, room: int = 2048) -> list[str]:
    """Every process' text, cut to `room` bytes of UTF-8."""
    content = text.encode(errors="backslashreplace")[:room]  # names of files may be no UTF-8
    mine = as_tensor(content, room).to(accelerator.device)
    rows = [torch.zeros_like(mine) for _ in range(accelerator.num_processes)]
    work = distributed.all_gather(rows, mine, async_op=True)
    try:
        while not work.is_completed():  # NCCL's own way to wait keeps a core busy, which whoever packs the images needs
            time.sleep(0.01)
    finally:
        work.wait()  # after a Ctrl-C too: Python must not end while it is under way
    return [bytes(row.tolist()).rstrip(b"\0").decode(errors="ignore") for row in rows]


def as_tensor(content: bytes, size: int) -> Tensor:
    """uint8 (size,): the bytes, then zeros."""
    return torch.frombuffer(bytearray(content.ljust(max(size, 1), b"\0")), dtype=torch.uint8)[:size]
