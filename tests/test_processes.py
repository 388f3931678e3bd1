"""What is refused, remarked and recommended before processes begin to train."""

import os
from pathlib import Path

import pytest
import torch
import yaml
from accelerate import Accelerator

from gan.config import Config, ModelConfig, SpeedConfig
from gan.errors import UsageError
from gan.processes import (
    check_batch,
    check_gpu,
    check_launch,
    check_processes,
    layout_of,
    prefers_channels_last,
    recommended,
)
from tests.conftest import ROOT, TINY, run_script


@pytest.mark.parametrize(
    ("environment", "sentence"),
    [
        ({"WORLD_SIZE": "2"}, "WORLD_SIZE is 2, but nothing tells this process which of them it is"),
        ({"ACCELERATE_USE_DEEPSPEED": "true"}, "DeepSpeed shards one model per run, and a GAN has two"),
        ({"ACCELERATE_MIXED_PRECISION": "fp8"}, "--mixed_precision fp8: choose no, bf16, fp16."),
        ({"ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "2"}, "is set with --accumulation N"),
    ],
)
def test_wrong_environments_are_refused(
    environment: dict[str, str], sentence: str, images: Path, tmp_path: Path
) -> None:
    words = (*TINY, "--data", images, "--out", tmp_path / "run", "--iterations", 2)
    result = run_script(*words, env={**os.environ, **environment})
    assert (result.returncode, result.stderr.count("\n")) == (2, 1)
    assert sentence in result.stderr


def test_a_group_of_another_size_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(UsageError, match="WORLD_SIZE is 4, but the process group has 1"):
        check_processes(Config(), Accelerator(cpu=False))


def test_a_single_process_beside_a_cluster_is_not_refused() -> None:
    check_launch({"MASTER_ADDR": "node1", "MASTER_PORT": "1234"}, gpus=0)  # python train.py in a job that exports them
    check_launch({"WORLD_SIZE": "1"}, gpus=0)
    check_launch({"ACCELERATE_MIXED_PRECISION": "no"}, gpus=0)
    check_launch({"ACCELERATE_MIXED_PRECISION": "no", "MASTER_ADDR": "a", "MASTER_PORT": "1", "RANK": "0"}, gpus=0)
    check_launch({"ACCELERATE_MIXED_PRECISION": "no", "MASTER_ADDR": "a", "MASTER_PORT": "1", "PMI_SIZE": "2"}, gpus=0)


@pytest.mark.parametrize(
    ("card", "capability", "mixed", "tf32", "preferred"),
    [
        ("cpu", None, False, True, True),
        ("cuda", (6, 1), False, True, False),
        ("cuda", (6, 1), True, True, False),
        ("cuda", (7, 5), False, True, False),
        ("cuda", (7, 5), True, False, True),
        ("cuda", (8, 0), False, True, True),
        ("cuda", (8, 0), False, False, False),
        ("cuda", (8, 0), True, False, True),
    ],
)
def test_channels_come_last_where_there_are_tensor_cores_to_like_it(
    card: str, capability: tuple[int, int], mixed: bool, tf32: bool, preferred: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert prefers_channels_last(torch.device(card), mixed, tf32) == preferred


@pytest.mark.parametrize("wish", [True, False])
def test_a_wish_for_a_layout_is_granted_without_asking_anybody(wish: bool) -> None:
    layout = layout_of(Config(speed=SpeedConfig(channels_last=wish)), None)  # type: ignore[arg-type]
    assert layout == (torch.channels_last if wish else torch.contiguous_format)


def test_more_processes_than_gpus_are_refused() -> None:
    with pytest.raises(UsageError, match="4 processes were started on this machine, but it has 2 GPUs"):
        check_launch({"LOCAL_WORLD_SIZE": "4", "RANK": "0"}, gpus=2)
    check_launch({"LOCAL_WORLD_SIZE": "2", "RANK": "0"}, gpus=2)
    check_launch({"LOCAL_WORLD_SIZE": "2", "RANK": "0"}, gpus=0)


@pytest.mark.parametrize(
    ("batch", "accumulation", "processes", "nearest"),
    [(10, 1, 4, 8), (11, 1, 4, 12), (10, 2, 3, 12), (3, 2, 2, 4), (7, 7, 2, 14)],
)
def test_the_nearest_batch_that_can_be_shared(batch: int, accumulation: int, processes: int, nearest: int) -> None:
    with pytest.raises(UsageError, match=f"the nearest that can is {nearest}"):
        check_batch(Config(batch_size=batch, accumulation=accumulation), processes, images=100)
    check_batch(Config(batch_size=nearest, accumulation=accumulation), processes, images=100)


def test_the_nearest_batch_is_one_that_there_are_images_for() -> None:
    with pytest.raises(UsageError, match="the nearest that can is 8"):
        check_batch(Config(batch_size=11), 4, images=11)
    with pytest.raises(UsageError, match="5 images are too few for so many"):
        check_batch(Config(batch_size=5), 8, images=5)


def test_batchnorm_of_one_process_needs_two_images() -> None:
    own = ModelConfig(stem="dense", sync_batchnorm=False)
    with pytest.raises(UsageError, match="needs two images at once: --batch-size 8"):
        check_batch(Config(batch_size=4, accumulation=2, model=own), 2, images=100)
    for batch, model in ((8, own), (4, ModelConfig(stem="dense"))):
        check_batch(Config(batch_size=batch, accumulation=2, model=model), 2, images=100)


CUDA_13 = ["sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120"]


@pytest.mark.parametrize(
    ("name", "capability", "architectures", "precision", "sentence"),
    [
        ("NVIDIA GeForce GTX 1080", (6, 1), CUDA_13, "no", "whl/cu126"),
        ("Tesla V100-SXM2-16GB", (7, 0), CUDA_13, "no", "capability 7.0"),
        ("NVIDIA GeForce GTX 1650", (7, 5), CUDA_13, "fp16", "gives NaN or black images in fp16"),
        ("NVIDIA Z1", (13, 0), CUDA_13, "no", "install a build that has."),
        ("NVIDIA H200", (9, 0), ["sm_80", "sm_90a"], "no", None),
        ("NVIDIA Z2", (9, 1), ["sm_80", "sm_90a"], "no", "capability 9.1"),
        ("NVIDIA Z3", (13, 0), [*CUDA_13, "compute_120"], "bf16", None),
        ("NVIDIA GeForce GTX 1650", (7, 5), CUDA_13, "no", None),
        ("NVIDIA GeForce RTX 4060", (8, 9), CUDA_13, "fp16", None),
    ],
)
def test_gpus_that_cannot_work_are_refused(
    name: str, capability: tuple[int, int], architectures: list[str], precision: str, sentence: str | None
) -> None:
    if sentence is None:
        check_gpu(name, capability, architectures, precision)
        return
    with pytest.raises(UsageError, match=sentence) as refusal:
        check_gpu(name, capability, architectures, precision)
    assert name in str(refusal.value)


def test_bf16_on_an_old_card_is_remarked(capsys: pytest.CaptureFixture[str]) -> None:
    check_gpu("Tesla T4", (7, 5), CUDA_13, "bf16")
    assert "Tesla T4 has no bf16 in hardware" in capsys.readouterr().out


A100, RTX, T4, GTX16, GTX10 = (
    *(("NVIDIA A100", (8, 0)), ("NVIDIA GeForce RTX 4090", (8, 9)), ("Tesla T4", (7, 5))),
    *(("NVIDIA GeForce GTX 1650", (7, 5)), ("NVIDIA GeForce GTX 1080", (6, 1))),
)


@pytest.mark.parametrize(
    ("cards", "words"),
    [
        ([], "cpu.yaml"),
        ([A100], "single_gpu.yaml --mixed_precision bf16"),
        ([A100, RTX], "multi_gpu_bf16.yaml --num_processes 2"),
        ([T4], "single_gpu.yaml --mixed_precision fp16"),
        ([T4, A100], "multi_gpu_fp16.yaml --num_processes 2"),
        ([GTX16], "gtx.yaml"),
        ([GTX10], "gtx.yaml"),
        ([GTX10, GTX16], "multi_gpu.yaml --num_processes 2"),
        ([A100, GTX10, A100], "multi_gpu.yaml --num_processes 3"),
    ],
)
def test_the_configuration_that_suits_the_cards(cards: list[tuple[str, tuple[int, int]]], words: str) -> None:
    """The configuration is there, and has or is given the precision and the number of processes that is meant."""
    advised, mixed, _ = recommended(cards)
    assert advised == words
    file, *more = words.split()
    given = dict(zip(more[::2], more[1::2], strict=True))
    settings = yaml.safe_load((ROOT / "accelerate_configs" / file).read_text())
    assert given.get("--mixed_precision", settings["mixed_precision"]) == mixed
    assert int(given.get("--num_processes", settings["num_processes"])) == max(1, len(cards))
