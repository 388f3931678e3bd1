import numpy as np
import pytest
import torch

from gan.metrics.swd import (
    descriptors,
    double,
    halve,
    laplacian,
    normalise,
    patches,
    positions,
    pyramid_sides,
    sliced_wasserstein,
)
from tests.metrics.conftest import Compare


def test_scales() -> None:
    assert pyramid_sides(16) == [16]
    assert pyramid_sides(128) == [128, 64, 32, 16]


def test_halving_keeps_a_slope_and_doubling_a_constant() -> None:
    """A symmetric filter whose weights sum to 1 leaves a straight line as it is, away from the edges."""
    slope = torch.arange(32.0).expand(1, 2, 32, 32) + 3 * torch.arange(32.0)[:, None]
    assert halve(slope)[:, :, 1:-1, 1:-1].allclose(slope[:, :, 2:-2:2, 2:-2:2])
    assert double(torch.full((1, 3, 8, 8), 5.0)).allclose(torch.full((1, 3, 16, 16), 5.0))


def test_the_filter_is_the_binomial_one() -> None:
    point = torch.zeros(1, 1, 16, 16)
    point[0, 0, 8, 8] = 256
    row = torch.tensor([1.0, 6, 1])  # every other one of 1 4 6 4 1
    assert halve(point)[0, 0, 3:6, 3:6].equal(torch.outer(row, row))


def test_the_levels_of_the_pyramid_add_up_to_the_image() -> None:
    image = torch.rand(2, 3, 64, 64, dtype=torch.float64)
    parts = [laplacian(image, level) for level in range(3)]
    assert [part.shape[-1] for part in parts] == [64, 32, 16]
    total = parts[2]
    for part in parts[1::-1]:
        total = part + double(total)
    assert total.allclose(image, atol=1e-12)
    assert laplacian(torch.ones(1, 1, 32, 32), 0).abs().max() < 1e-6  # what a coarser scale shows is not shown again


def test_patches_are_where_the_draws_say() -> None:
    images = torch.rand(2, 3, 16, 16)
    u = torch.tensor([[[0.0, 0.0], [0.999999999, 0.999999999]], [[0.35, 0.7], [0.999999999, 0.0]]], dtype=torch.float64)
    found = patches(images, u)
    assert found.shape == (2, 2, 3, 7, 7)
    assert found[0, 0].equal(images[0, :, :7, :7])
    assert found[0, 1].equal(images[0, :, 9:, 9:])
    assert found[1, 0].equal(images[1, :, 3:10, 7:14])
    assert found[1, 1].equal(images[1, :, 9:, :7])


def test_positions_fill_no_more_than_the_memory_allowed() -> None:
    assert positions(0, 0, 100).shape == (100, 128, 2)
    assert positions(0, 0, 5000).shape == (5000, 26, 2)
    assert positions(0, 0, 300_000).shape == (300_000, 1, 2)
    assert not positions(0, 0, 10).equal(positions(0, 1, 10))
    assert not positions(0, 0, 10).equal(positions(1, 0, 10))


def test_each_channel_is_normalised_over_the_whole_set() -> None:
    values = torch.rand(20, 4, 3, 7, 7) * torch.tensor([1.0, 10, 100])[:, None, None] + 5
    channels = values.numpy().astype(float).transpose(2, 0, 1, 3, 4).reshape(3, -1)
    wanted = (channels - channels.mean(1, keepdims=True)) / channels.std(1, keepdims=True)
    flat = normalise(values).reshape(80, 3, 49).transpose(0, 1).flatten(1)
    np.testing.assert_allclose(flat, wanted, atol=1e-4)
    assert normalise(torch.ones(2, 1, 3, 7, 7)).equal(torch.zeros(2, 147))  # nothing to normalise, and no nan


def test_a_shift_costs_its_length_along_the_directions() -> None:
    """In three dimensions |cos| is ½ on average over the sphere; 512 directions come near that."""
    x = torch.randn(500, 3, generator=torch.Generator().manual_seed(0))
    x_shifted = (x + torch.tensor([3.0, 0, 4])).flip(0)
    assert sliced_wasserstein(x, x_shifted, seed=0) == pytest.approx(5 / 2, rel=0.05)
    assert sliced_wasserstein(x, x.flip(0), seed=0) == 0
    assert sliced_wasserstein(x, x_shifted, 0) != sliced_wasserstein(x, x_shifted, 1)


def test_one_dimension_is_the_distance_of_sorted_values() -> None:
    x, y = np.random.default_rng(0).standard_normal((2, 101, 1)) * [[[1.0]], [[3.0]]]
    wanted = np.abs(np.sort(x[:, 0]) - np.sort(y[:, 0])).mean()
    assert sliced_wasserstein(torch.from_numpy(x), torch.from_numpy(y), 0) == pytest.approx(wanted)


def test_the_whole_by_another_way(compare: Compare) -> None:
    """The values are those of the steps, one after the other, with all images at once."""
    rng = np.random.default_rng(0)
    real, fake = rng.integers(0, 256, (2, 70, 64, 64, 3), dtype=np.uint8)
    fake = fake // 2 + fake[:, ::-1] // 2
    values = compare(real, fake, "swd")
    for level, side in enumerate((64, 32, 16)):
        sets = [normalise(descriptors(torch.from_numpy(x), level, positions(0, level, 70))) for x in (real, fake)]
        assert values[f"swd_{side}"] == pytest.approx(1000 * sliced_wasserstein(sets[0], sets[1], 0), rel=1e-6)
    assert values["swd"] == pytest.approx((values["swd_64"] + values["swd_32"] + values["swd_16"]) / 3)
