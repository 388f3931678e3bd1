import pytest
import torch
from torch import nn

from gan.networks.blocks import channels_at
from gan.networks.dcgan import Discriminator, Generator
from gan.randomness import initialise


def parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("resolution", [16, 32, 64, 128, 256, 512])
def test_shapes(resolution: int, channels: int) -> None:
    G = Generator(resolution, channels, z_dim=5, width=4)
    D = Discriminator(resolution, channels, width=4, norm_first=False)
    (images,) = G(torch.randn(2, 5))
    assert images.shape == (2, channels, resolution, resolution)
    assert images.abs().max() <= 1
    assert D([images]).shape == (2, 1)


@pytest.mark.parametrize(
    ("width", "g_parameters", "d_parameters"), [(128, 12_658_432, 11_036_416), (64, 3_576_704, 2_765_696)]
)
def test_parameter_counts_of_the_published_networks(width: int, g_parameters: int, d_parameters: int) -> None:
    assert parameters(Generator(64, 3, 100, width)) == g_parameters
    assert parameters(Discriminator(64, 3, width, norm_first=True)) == d_parameters
    assert parameters(Discriminator(64, 3, width, norm_first=False)) == d_parameters - 2 * width


def test_blocks_see_the_resolutions_they_are_named_after() -> None:
    G, D = Generator(64, 3, 10, 8), Discriminator(64, 3, 8, norm_first=False)
    seen: dict[str, int] = {}
    for name, block in [*G.blocks.items(), *D.blocks.items()]:
        block.register_forward_hook(lambda _m, _i, out, name=name: seen.__setitem__(f"{name}/{id(_m)}", out.shape[-1]))
    D(G(torch.randn(2, 10)))
    assert len(seen) == 4 + 3
    assert all(int(name.split("/")[0]) == size for name, size in seen.items())


def test_blocks_keep_their_shape_when_the_resolution_grows() -> None:
    small, large = Generator(64, 3, 10, 16), Generator(256, 3, 10, 16)
    large_state = large.state_dict()
    for name, tensor in small.state_dict().items():
        if name.startswith("blocks."):
            assert large_state[name].shape == tensor.shape


def test_channels_follow_the_table_of_the_wide_network() -> None:
    assert [channels_at(size, 128) for size in (4, 8, 16, 32)] == [1024, 512, 256, 128]
    assert channels_at(256, 64) == 16  # never thinner than 16 …
    assert channels_at(256, 4) == 4  # … nor than the width itself


def test_the_slope_of_the_leaky_relus_is_the_papers() -> None:
    D = Discriminator(64, 3, 4, norm_first=False)
    assert [layer.negative_slope for layer in D.modules() if isinstance(layer, nn.LeakyReLU)] == [0.2] * 4


def test_initial_weights() -> None:
    G = Generator(64, 3, 100, 64)
    initialise(G, seed=3, name="generator")
    weights = dict(G.named_parameters())
    first, scales = weights["blocks.4.conv.weight"], weights["blocks.4.norm.weight"]
    count = first.numel()  # 819,200 draws: the standard errors below are tight
    assert abs(first.mean().item()) < 5 * 0.02 / count**0.5
    assert abs(first.std().item() - 0.02) < 5 * 0.02 / (2 * count) ** 0.5
    assert abs(scales.mean().item() - 1) < 5 * 0.02 / scales.numel() ** 0.5
    assert not weights["blocks.4.norm.bias"].any()


def test_initial_weights_do_not_depend_on_the_rest_of_the_network() -> None:
    small, large = Generator(32, 3, 10, 8), Generator(128, 3, 10, 8)
    for network in (small, large):
        initialise(network, seed=0, name="generator")
    assert small.state_dict()["blocks.8.conv.weight"].equal(large.state_dict()["blocks.8.conv.weight"])
    other = Generator(32, 3, 10, 8)
    initialise(other, seed=1, name="generator")
    assert not small.state_dict()["blocks.8.conv.weight"].equal(other.state_dict()["blocks.8.conv.weight"])


@pytest.mark.parametrize("norm_first", [False, True])
def test_the_first_block_of_d_has_batchnorm_only_when_asked(norm_first: bool) -> None:
    D = Discriminator(32, 3, 8, norm_first)
    norms = [name for name, layer in D.named_modules() if isinstance(layer, nn.BatchNorm2d)]
    assert ("from_image.norm" in norms) is norm_first
    assert len(norms) == 2 + norm_first
