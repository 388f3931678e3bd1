from concurrent.futures import ProcessPoolExecutor

import numpy as np
import torch

from gan.data.sprites import draw_sprite
from tests.forked import server


def flat(count: int) -> np.ndarray:
    """(count, 16·16·3) in [0, 1], on white."""
    small = [draw_sprite(index, 128).resize((16, 16)).convert("RGBa") for index in range(count)]
    pixels = np.stack([np.asarray(image, dtype=np.float64) for image in small]) / 255
    return (pixels[..., :3] + 1 - pixels[..., 3:]).reshape(count, -1)


def test_sprites_are_always_the_same() -> None:
    assert draw_sprite(5, 64).tobytes() == draw_sprite(5, 64).tobytes()
    assert draw_sprite(5, 64).tobytes() != draw_sprite(6, 64).tobytes()
    assert draw_sprite(5, 64).tobytes() != draw_sprite(5, 64, seed=1).tobytes()
    with ProcessPoolExecutor(1, mp_context=server) as elsewhere:
        assert draw_sprite(5, 64).tobytes() == elsewhere.submit(draw_sprite, 5, 64).result().tobytes()


def test_sprites_are_symmetric() -> None:
    for index in range(20):
        pixels = np.asarray(draw_sprite(index, 128).convert("RGBa"), dtype=float)
        assert np.abs(pixels - pixels[:, ::-1]).mean() < 6  # of 255: outlines shift by at most a pixel


def test_sprites_are_varied() -> None:
    """No two alike, and a single sprite, however typical, misses most of what there is: collapse would show."""
    pixels = flat(400)
    assert torch.pdist(torch.from_numpy(pixels)).min() > 0.5
    spread = np.linalg.svd(pixels - pixels.mean(0), compute_uv=False) ** 2
    directions_for_90_percent = int((np.cumsum(spread) / spread.sum() < 0.9).sum())
    assert directions_for_90_percent > 20
