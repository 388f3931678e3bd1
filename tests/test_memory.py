"""Counted memory against what PyTorch's allocator really hands out."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from torch.profiler import ProfilerActivity, profile

from gan.config import Config, ModelConfig, ObjectiveConfig
from gan.errors import ProcessError
from gan.memory import advice, is_out_of_memory, iterate, training_bytes
from gan.networks import NETWORKS
from gan.objectives import PENALTIES
from gan.processes import check_batch
from gan.run import plain_faults
from gan.watchdog import Watchdog

SMALL = Config(resolution=64, batch_size=32, model=ModelConfig(width=16))


def test_counted_bytes_are_those_the_allocator_hands_out(tmp_path: Path) -> None:
    """The profiler sees every allocation on the CPU, also the scratch space of kernels: that is the difference."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as profiler:
        G, D = NETWORKS["dcgan"](SMALL)
        kept = [torch.zeros_like(parameter) for module in (G, D) for parameter in module.parameters() for _ in "mv"]
        kept += [torch.zeros_like(parameter) for parameter in G.parameters()]
        iterate(G, D, SMALL, torch.empty(32, 3, 64, 64))
    profiler.export_chrome_trace(str(tmp_path / "trace.json"))
    events = [event for event in json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
              if event.get("name") == "[memory]"]  # fmt: skip
    allocated = peak = 0
    for event in sorted(events, key=lambda event: event["ts"]):
        allocated += event["args"]["Bytes"]
        peak = max(peak, allocated)
    assert 0.85 * peak < training_bytes(SMALL, 32) <= peak


def test_memory_grows_with_the_batch_and_shrinks_in_half_precision() -> None:
    assert training_bytes(SMALL, 64) > 1.7 * training_bytes(SMALL, 32)
    assert training_bytes(SMALL, 32, "bf16") < 0.8 * training_bytes(SMALL, 32)
    assert training_bytes(replace(SMALL, dtype="float64"), 32) == 2 * training_bytes(SMALL, 32)


@pytest.mark.parametrize("precision", ["no", "fp16", "bf16"])
@pytest.mark.parametrize("penalty", PENALTIES)
def test_every_penalty_can_be_counted_in_every_precision(penalty: str, precision: str) -> None:
    model = ModelConfig(width=16, norm_d="none", network="msg", dropout=0.1)
    config = replace(SMALL, model=model, objective=ObjectiveConfig(penalty=penalty))
    plain = training_bytes(replace(config, objective=ObjectiveConfig()), 8, precision)
    counted = training_bytes(config, 8, precision)
    assert counted > plain or (penalty == "none" and counted == plain)


def test_out_of_memory_names_a_batch_that_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    """4 GB, the width 128 network at 128 px and 1,024 images: 512 are still too many, 256 fit."""

    class Card:
        total_memory = 4 * 2**30

    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: Card)
    config = Config(resolution=128, batch_size=1024, model=ModelConfig(width=128))
    assert training_bytes(config, 256) < Card.total_memory < training_bytes(config, 512)
    sentence = advice(config, 1, "no", torch.device("cuda"))
    assert "Try --batch-size 256 " in sentence
    assert "--accumulation 4" in sentence
    assert "--batch-size 512 " in advice(replace(config, batch_size=2048), 2, "no", torch.device("cuda"))


def test_the_advice_can_be_followed() -> None:
    """100 images on 4 processes: 25 rows each, which 5 divides and 2 does not."""
    sentence = advice(replace(SMALL, batch_size=100), 4, "no", torch.device("cpu"))
    assert "Try --batch-size 20 " in sentence
    assert "--accumulation 5" in sentence
    check_batch(replace(SMALL, batch_size=20), 4, images=100)
    check_batch(replace(SMALL, batch_size=100, accumulation=5), 4, images=100)
    assert "No smaller batch would fit" in advice(replace(SMALL, batch_size=4), 4, "no", torch.device("cpu"))
    assert "--batch-size 2 " in advice(replace(SMALL, batch_size=4), 1, "no", torch.device("cpu"))
    assert "No smaller batch would fit" in advice(replace(SMALL, batch_size=2), 1, "no", torch.device("cpu"))


@pytest.mark.parametrize(
    ("said", "full"),
    [
        ("CUDA out of memory. Tried to allocate 2.00 GiB.", True),
        ("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`", True),
        ("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED", True),  # since cuDNN 9
        ("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1125899906842624 bytes.", True),
        ("CUDA error: an illegal memory access was encountered", False),
    ],
)
def test_who_says_how_that_memory_is_full(said: str, full: bool) -> None:
    assert is_out_of_memory(RuntimeError(said)) == full


def test_a_full_memory_becomes_a_sentence() -> None:
    accelerator = Accelerator(cpu=True)
    with (
        pytest.raises(ProcessError, match="process 0: out of memory: 32 images at a time need"),
        plain_faults(SMALL, accelerator, Watchdog(accelerator, 60, "")),
    ):
        torch.empty(2**50)
    with pytest.raises(RuntimeError, match="size"), plain_faults(SMALL, accelerator, Watchdog(accelerator, 60, "")):
        torch.zeros(2) + torch.zeros(3)  # other faults keep their traceback
