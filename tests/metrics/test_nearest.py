"""Which real images are nearest to a generated one."""

from collections.abc import Callable

import numpy as np
import pytest

from gan.metrics import nearest
from gan.metrics.nearest import distances_among, nearest_images

Shaped = Callable[[np.ndarray], np.ndarray]


def pixels(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)


def as_they_are(images: np.ndarray) -> np.ndarray:
    return images


@pytest.mark.parametrize("at_once", [1, 3 * 8 * 8 * 7, 1 << 24])
def test_each_image_against_every_real_one(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many are looked at at once, a loop finds the same."""
    monkeypatch.setattr(nearest, "BLOCK_BYTES", at_once)
    real, drawn = pixels(40, 0), pixels(5, 1)
    drawn[3] = real[17]
    distances, numbers = nearest_images(drawn, real, 3, as_they_are)
    for row, image in enumerate(drawn):
        by_hand = [float(np.sqrt(((image.astype(float) - other) ** 2).mean())) for other in real]
        assert distances[row].tolist() == pytest.approx(sorted(by_hand)[:3], abs=1e-9)
        assert numbers[row].tolist() == np.argsort(by_hand)[:3].tolist()
    assert distances[3, 0] == 0
    assert numbers[3, 0] == 17


def test_a_mirror_image_is_a_copy_where_both_were_seen() -> None:
    real, drawn = pixels(9, 0), pixels(2, 1)
    drawn[1] = real[6, :, ::-1]
    distances, numbers = nearest_images(drawn, real, 2, as_they_are, axes=[2])
    assert distances[1, 0] == 0
    assert numbers[1, 0] == 6
    assert nearest_images(drawn, real, 2, as_they_are)[0][1, 0] > 0
    plain = np.sqrt(((drawn[0].astype(float) - real) ** 2).mean((1, 2, 3)))
    turned = np.sqrt(((drawn[0, :, ::-1].astype(float) - real) ** 2).mean((1, 2, 3)))
    assert distances[0].tolist() == pytest.approx(sorted(np.minimum(plain, turned))[:2], abs=1e-9)
    assert (distances_among(real, as_they_are, axes=[2]) <= distances_among(real, as_they_are)).all()


def test_a_copy_may_be_turned_along_both_axes() -> None:
    real, drawn = pixels(9, 0), pixels(3, 1)
    drawn[:] = real[1, ::-1], real[2, ::-1, ::-1], real[3]
    distances, numbers = nearest_images(drawn, real, 1, as_they_are, axes=[2, 1])
    assert distances[:, 0].tolist() == [0, 0, 0]
    assert numbers[:, 0].tolist() == [1, 2, 3]
    assert nearest_images(drawn, real, 1, as_they_are, axes=[2])[0][:, 0].bool().tolist() == [True, True, False]


def test_fewer_large_images_are_compared_with_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """As they are all in memory."""
    real = pixels(40, 0)
    monkeypatch.setattr("gan.metrics.nearest.FEW", 3)
    monkeypatch.setattr("gan.metrics.nearest.QUERY_BYTES", 8 * real[:7].size)
    assert len(distances_among(real, as_they_are)) == 7
    monkeypatch.setattr("gan.metrics.nearest.QUERY_BYTES", 0)
    assert len(distances_among(real, as_they_are)) == 3


def test_one_level_of_difference_everywhere_is_a_distance_of_one() -> None:
    dark = np.full((1, 8, 8, 3), 100, np.uint8)
    assert nearest_images(dark, dark + 1, 1, as_they_are)[0].item() == pytest.approx(1)


def test_what_is_compared_is_what_is_seen() -> None:
    """Both go through the conversion: here, to the colours under a transparent image."""
    seen: Shaped = lambda images: images[..., :1]  # noqa: E731
    real, drawn = pixels(4, 0), pixels(1, 1)
    drawn[0, ..., 0] = real[2, ..., 0]
    distances, numbers = nearest_images(drawn, real, 1, seen)
    assert (distances.item(), numbers.item()) == (0, 2)


def test_copies_among_the_real_images_do_not_count() -> None:
    real = pixels(30, 0)
    real[20:] = real[10:20]
    expected = [min(float(np.sqrt(((one.astype(float) - other) ** 2).mean())) for other in real if (one != other).any())
                for one in real]  # fmt: skip
    assert distances_among(real, as_they_are).tolist() == pytest.approx(expected, abs=1e-9)
    assert len(distances_among(real, as_they_are, count=7)) == 7
    assert not len(distances_among(real[:1].repeat(5, 0), as_they_are)), "nothing but copies"
