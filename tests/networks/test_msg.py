"""Several scales, and the choices of layers that go with other recipes."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from gan.config import Config, ModelConfig
from gan.networks import NETWORKS, dcgan
from gan.networks.blocks import Layers
from gan.networks.dcgan import Discriminator, Generator
from gan.randomness import initialise

SMALL = Config(model=ModelConfig(network="msg", width=4, z_dim=5))


@pytest.mark.parametrize("head", ["logit", "map"])
@pytest.mark.parametrize("resolution", [32, 64, 128])
def test_scales_down_to_ds_last(resolution: int, head: str) -> None:
    config = replace(SMALL, resolution=resolution, channels=4, model=replace(SMALL.model, head=head))
    G, D = NETWORKS["msg"](config)
    images = G(torch.randn(2, 5))
    sides = [image.shape[-1] for image in images]
    assert sides == [resolution >> scale for scale in range(G.scales)]
    assert sides[-1] == (8 if head == "map" else 4)
    assert all(image.shape[1] == 4 and image.abs().max() <= 1 for image in images)
    assert D(images).shape == (2, 64 if head == "map" else 1)


def test_every_scale_reaches_every_player() -> None:
    G, D = NETWORKS["msg"](SMALL)
    images = [image.detach().requires_grad_() for image in G(torch.randn(2, 5))]
    D(images).sum().backward()
    assert all(image.grad is not None and image.grad.abs().max() > 0 for image in images)
    D(G(torch.randn(2, 5))).sum().backward()
    assert all(parameter.grad is not None for parameter in G.parameters())


def test_even_the_smallest_injection_takes_every_scale_in() -> None:
    _, D = NETWORKS["msg"](replace(SMALL, model=replace(SMALL.model, injection=0.001)))
    assert [lift.out_channels for lift in D.lifts.values()] == [1, 1, 1, 1]


@pytest.mark.parametrize("injection", [0.5, 1.0])
def test_injection_is_a_multiple_of_the_blocks_channels(injection: float) -> None:
    _, D = NETWORKS["msg"](replace(SMALL, model=replace(SMALL.model, width=64, injection=injection)))
    lifted: dict[str, tuple[object, object]] = {
        size: (lift.in_channels, lift.out_channels) for size, lift in D.lifts.items()
    }
    assert lifted == {str(size): (3, int(injection * 64 * 32 / size)) for size in (32, 16, 8, 4)}
    assert D.blocks["16"].conv.in_channels == 64 * (1 + injection)  # type: ignore[union-attr]


def test_one_scale_is_the_plain_dcgan() -> None:
    plain, one = dcgan(SMALL), (Generator(64, 3, 5, 4, scales=1), Discriminator(64, 3, 4, False, scales=1))
    z = torch.randn(2, 5)
    for network, other, name in zip(plain, one, ("generator", "discriminator"), strict=True):
        initialise(network, 0, name)
        initialise(other, 0, name)
        assert network.state_dict().keys() == other.state_dict().keys()
    (expected,), (found,) = plain[0](z), one[0](z)
    assert found.equal(expected)
    assert one[1]([found]).equal(plain[1]([expected]))


@pytest.mark.parametrize("norm", ["batch", "instance", "layer", "none"])
def test_norms(norm: str) -> None:
    """What each one leaves untouched: batch, a channel's statistics; instance, each map's; layer, each sample's."""
    D = Discriminator(32, 3, 4, True, Layers(norm=norm))
    kinds = {"batch": nn.BatchNorm2d, "instance": nn.InstanceNorm2d, "layer": nn.GroupNorm, "none": type(None)}
    found = [m for m in D.modules() if isinstance(m, nn.BatchNorm2d | nn.InstanceNorm2d | nn.GroupNorm)]
    assert len(found) == (0 if norm == "none" else 3)
    assert all(isinstance(m, kinds[norm]) for m in found)
    out = D.from_image[:-1](torch.randn(8, 3, 32, 32) + torch.randn(8, 1, 1, 1))
    over = {"batch": (0, 2, 3), "instance": (2, 3), "layer": (1, 2, 3), "none": ()}[norm]
    if over:
        assert out.mean(over).abs().max() < 1e-5
        assert (out.var(over, correction=0) - 1).abs().max() < 0.02
    alone = D.from_image[:-1](torch.ones(2, 3, 32, 32)[:1]) if norm != "batch" else None
    if alone is not None:
        both = D.from_image[:-1](torch.cat([torch.ones(1, 3, 32, 32), torch.randn(1, 3, 32, 32)]))
        torch.testing.assert_close(both[:1], alone)  # samples do not see each other


def test_spectral_norm_makes_every_layer_a_contraction() -> None:
    model = ModelConfig(width=8, norm_d="none", spectral_norm=True)
    D, other = (NETWORKS["dcgan"](Config(resolution=32, model=model))[1] for _ in range(2))
    for network in (D, other):
        initialise(network, 3, "discriminator")
    assert all(one.equal(two) for one, two in zip(D.state_dict().values(), other.state_dict().values(), strict=True))
    for _ in range(100):
        D([torch.randn(2, 3, 32, 32)])
    convolutions = [m for m in D.modules() if isinstance(m, nn.Conv2d)]
    assert len(convolutions) == 4
    for conv in convolutions:
        largest = torch.linalg.matrix_norm(conv.weight.flatten(1), 2)
        assert largest.item() == pytest.approx(1, abs=0.01)


def test_spectral_norm_is_computed_in_float32_in_mixed_precision_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU, autocast takes a matrix' product with a vector to bf16; a CPU's never does, so its state is asked."""
    D = NETWORKS["dcgan"](Config(resolution=32, model=ModelConfig(width=8, norm_d="none", spectral_norm=True)))[1]
    product, inside = torch.mv, list[bool]()

    def watched(matrix: Tensor, vector: Tensor) -> Tensor:
        inside.append(torch.is_autocast_enabled("cpu"))
        return product(matrix, vector)

    monkeypatch.setattr(torch, "mv", watched)
    with torch.autocast("cpu", torch.bfloat16):
        assert D([torch.randn(2, 3, 32, 32)]).dtype == torch.bfloat16
    assert inside == [False] * 4 * 3  # u, v and σ of four layers
