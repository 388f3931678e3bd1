import numpy as np
import torch

from gan.randomness import image_order, latents


def test_draws_depend_on_seed_purpose_and_index_alone() -> None:
    first = latents(3, "latents", 7, 5, 4)
    latents(9, "latents", 1, 100, 4)  # whatever else is drawn in between
    assert first.equal(latents(3, "latents", 7, 5, 4))
    for other in (latents(4, "latents", 7, 5, 4), latents(3, "samples", 7, 5, 4), latents(3, "latents", 8, 5, 4)):
        assert not (first == other).any()


def test_latents_never_change_between_versions() -> None:
    """Old runs must resume along their own path: these numbers may never change."""
    expected = torch.tensor([[-2.033989758, 0.113602445], [0.678432877, -0.470508759]], dtype=torch.float64)
    torch.testing.assert_close(latents(0, "latents", 0, 2, 2), expected, rtol=0, atol=1e-8)


def test_latents_are_standard_normal() -> None:
    z = latents(0, "latents", 0, 1000, 100)
    assert abs(z.mean().item()) < 5 / 100_000**0.5
    assert abs(z.var().item() - 1) < 5 * (2 / 100_000) ** 0.5
    assert z.dtype == torch.float64


def test_every_pass_shows_every_image_once() -> None:
    stream = image_order(seed=1, images=20, start=0, count=60).reshape(3, 20)
    for passed in stream:
        assert sorted(passed) == list(range(20))
    assert (stream[0] != stream[1]).any()
    assert (stream != image_order(2, 20, 0, 60).reshape(3, 20)).any()


def test_batches_are_windows_of_one_stream() -> None:
    stream = image_order(seed=5, images=20, start=0, count=64)
    batches = np.concatenate([image_order(5, 20, start, 8) for start in range(0, 64, 8)])  # 16 … 24 straddles a pass
    assert (stream == batches).all()
