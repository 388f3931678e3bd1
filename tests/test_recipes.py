"""Each recipe builds the networks its source describes: layers and parameter counts computed by hand."""

import math
import os
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import nn

from gan.config import Config, flags, read_recipe
from gan.listing import RECIPES
from gan.networks import NETWORKS
from tests.conftest import QUIET, checkpoint_of, log_of, run_script

NAMES = sorted(path.stem for path in RECIPES.glob("*.yaml"))
WIDE = (12_658_432, 11_036_416)
NARROW = (3_576_704, 2_765_696)
# G: 100·4096 + 2·4096; 256·128·25 + 2·128; 128·64·25 + 2·64; 64·32·25 + 2·32; 32·16·25 + 2·16; 16·3·25
# critic: 3·16·25; 16·32·25; 32·64·25; 64·128·25; 128 of the score map; 2·(16 + 32 + 64 + 128) of BatchNorm
WGAN = (1_507_472, 270_608)
COUNTS = {
    "pokemon-wide": WIDE,
    "pokemon-wide-sum": WIDE,
    "pokemon-saturating": WIDE,
    "pokemon-narrow": NARROW,
    "d2l": NARROW,
    "space": (NARROW[0] + 28 * 512 * 16, NARROW[1]),  # z has 128 numbers
    # narrow G, and 3×3 kernels to RGB from 512 … 64 channels; D's blocks take half as much again, lifted by 1×1
    "msg-64": (
        NARROW[0] + 3 * 9 * (512 + 256 + 128 + 64),
        3 * 64 * 16 + (96 * 128 + 192 * 256 + 384 * 512 + 768) * 16 + 2 * (128 + 256 + 512) + 3 * (32 + 64 + 128 + 256),
    ),
    "wgan": WGAN,
    "wgan-gp": (WGAN[0], WGAN[1] - 2 * (16 + 32 + 64 + 128)),
    "lsgan": WGAN,
}


SQUASH, FIRST = {"data-options.fit": "squash"}, {"model.norm-first": True}
SPRITES = {**SQUASH, **FIRST, "epochs": 50.0}
CONVOLUTIONS = {"model.width": 32, "model.kernel": 5, "model.stem": "dense", "model.head": "map"}
SHIFTED = {"augment.flip": 0.5, "augment.flip-vertical": 0.5, "augment.shift": 0.5}
LARGE = {
    **SQUASH,
    **CONVOLUTIONS,
    **SHIFTED,
    "model.norm-momentum": 0.2,
    "resolution": 128,
    "batch-size": 32,
    "iterations": 33100,
}


def both(**options: object) -> dict[str, object]:
    return {f"optim-{player}.{name}": value for player in "dg" for name, value in options.items()}


SETTINGS: dict[str, dict[str, object]] = {
    "pokemon-wide": {**SPRITES, "model.width": 128},
    "pokemon-wide-sum": {**SPRITES, "model.width": 128, "objective.reduction": "sum", "objective.halve-d": False},
    "pokemon-saturating": {**SPRITES, "model.width": 128, "objective.loss": "saturating"},
    "pokemon-narrow": {**SPRITES, "batch-size": 256, **both(lr=5e-3)},
    "d2l": {**SPRITES, "epochs": 40.0, "batch-size": 256, **both(lr=5e-3), "objective.reduction": "sum",
            "log-every": 159, "sample-every": 159, "samples": 21},
    "space": {**FIRST, "epochs": 200.0, "batch-size": 10, "model.z-dim": 128, "objective.shared-latents": False,
              **both(lr=2e-3), "log-every": 20, "sample-every": 20},
    "msg-64": {"model.network": "msg", "epochs": 200.0},
    "msg-128": {"model.network": "msg", "epochs": 200.0, "resolution": 128},
    "wgan": {**LARGE, **FIRST, "objective.loss": "wasserstein", "objective.n-critic": 5, "objective.clip": 0.01,
             "objective.shared-latents": False, **both(method="rmsprop", lr=5e-5, beta2=0.9, eps=1e-7)},
    "wgan-gp": {**LARGE, "model.norm-d": "none", "objective.loss": "wasserstein", "objective.n-critic": 5,
                "objective.penalty": "gp", "objective.shared-latents": False, **both(lr=1e-4, beta1=0.0, beta2=0.9)},
    "lsgan": {**LARGE, **FIRST, "objective.loss": "least-squares"},
}  # fmt: skip
"""What each system sets away from the defaults, which are: 64×64, batch 128, z of 100, width 64, non-saturating, halved
mean, the same latents for both updates, Adam with 2e-4, 0.5 and 0.999, BatchNorm with 0.1, kernels of 4."""


@pytest.mark.parametrize("name", [name for name in NAMES if name != "quickstart"])
def test_settings_are_the_systems_and_nothing_else_differs(name: str) -> None:
    defaults = dict(flags(Config()))
    differing = {flag: value for flag, value in flags(read_recipe(name)) if value != defaults[flag]}
    assert differing.pop("recipe", defaults["recipe"]) == name
    assert differing == SETTINGS[name]


def built(name: str) -> tuple[Config, nn.Module, nn.Module]:
    config = read_recipe(name)
    return (config, *NETWORKS[config.model.network](config))


@pytest.mark.parametrize("name", COUNTS)
def test_parameter_counts(name: str) -> None:
    _, G, D = built(name)
    assert tuple(sum(p.numel() for p in module.parameters()) for module in (G, D)) == COUNTS[name]


@pytest.mark.parametrize("name", NAMES)
def test_shapes(name: str) -> None:
    config, G, D = built(name)
    side = config.resolution
    with torch.no_grad():
        images = G(torch.randn(2, config.model.z_dim))
        logits = D(images)
    sides = [side >> scale for scale in range(len(images))]
    assert [tuple(image.shape) for image in images] == [(2, 3, s, s) for s in sides]
    assert sides[-1] == (4 if name.startswith("msg") else side)
    assert logits.shape == ((2, 64) if config.model.head == "map" else (2, 1))


def layers(module: nn.Module) -> list[tuple[object, ...]]:
    """Convolutions as (in, out, kernel, stride, padding), and the names of the other layers."""
    return [
        (m.in_channels, m.out_channels, m.kernel_size[0], m.stride[0], m.padding[0])
        if isinstance(m, nn.Conv2d | nn.ConvTranspose2d) else (type(m).__name__,)
        for m in module.modules() if not list(m.children()) and not isinstance(m, nn.ModuleDict)
    ]  # fmt: skip


def test_the_wide_networks_are_the_published_ones() -> None:
    _, G, D = built("pokemon-wide")
    bn, relu, leaky = ("BatchNorm2d",), ("ReLU",), ("LeakyReLU",)
    sizes = [1024, 512, 256, 128]
    expected: list[tuple[object, ...]] = [(100, 1024, 4, 1, 0), bn, relu]
    for wide, narrow in pairwise(sizes):
        expected += [(wide, narrow, 4, 2, 1), bn, relu]
    assert layers(G) == [*expected, (128, 3, 4, 2, 1)]
    expected = [(3, 128, 4, 2, 1), bn, leaky]
    for narrow, wide in pairwise(sizes[::-1]):
        expected += [(narrow, wide, 4, 2, 1), bn, leaky]
    assert layers(D) == [*expected, (1024, 1, 4, 1, 0)]


def test_the_wgan_is_the_published_one() -> None:
    config, G, D = built("wgan")
    bn, relu, leaky = ("BatchNorm2d",), ("ReLU",), ("LeakyReLU",)
    expected: list[tuple[object, ...]] = [(100, 256, 4, 1, 0), ("Rearrange",), bn, relu, ("Rearrange",)]
    for wide, narrow in ((256, 128), (128, 64), (64, 32), (32, 16)):
        expected += [(wide, narrow, 5, 2, 2), bn, relu]
    assert layers(G) == [*expected, (16, 3, 5, 2, 2)]
    expected = []
    for narrow, wide in ((3, 16), (16, 32), (32, 64), (64, 128)):
        expected += [(narrow, wide, 5, 2, 2), bn, leaky]
    assert layers(D) == [*expected, (128, 1, 1, 1, 0)]
    norms = [m for module in (G, D) for m in module.modules() if isinstance(m, nn.BatchNorm2d)]
    assert {norm.momentum for norm in norms} == {0.2}
    assert norms[0].num_features == 4096
    assert (config.optim_d.method, config.optim_d.lr, config.objective.clip, config.objective.n_critic) == (
        "rmsprop", 5e-5, 0.01, 5)  # fmt: skip


@pytest.mark.parametrize("narrow", [("--model.width", 8), pytest.param((), marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", NAMES)
def test_recipes_run_by_the_real_script(name: str, narrow: tuple[object, ...], images: Path, tmp_path: Path) -> None:
    """At their own resolution, with their own networks but narrow, as wide as they are with pytest -m slow; on real
    images where GAN_TEST_IMAGES names a folder of image sets."""
    folder = os.environ.get("GAN_TEST_IMAGES")
    data = Path(folder) / "noto_emoji_core_64.zip" if folder else images
    words = ("--recipe", name, "--out", tmp_path, "--batch-size", 8, "--iterations", 3, "--log-every", 1)
    result = run_script(*words, *narrow, *QUIET, "--data", data)
    assert result.returncode == 0, result.stderr
    values = [value for group in checkpoint_of(tmp_path, 3).tensors.values() for value in group.values()]
    assert all(value.isfinite().all() for value in values)
    pictures = {path.name for path in (tmp_path / "samples").glob("iteration-00000003*")}
    assert len(pictures) == {"msg-64": 5, "msg-128": 6}.get(name, 1) + 1, (
        "of the average at every scale, and of G itself"
    )
    log = log_of(tmp_path)
    assert len(log) == 3
    assert {entry.pop("verdict") for entry in log} == {"starting"}
    assert all(math.isfinite(value) for entry in log for value in entry.values())
