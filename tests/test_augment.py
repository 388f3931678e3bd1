import pytest
import torch

from gan.augment import AUGMENTS, augment
from gan.config import AugmentConfig


@pytest.mark.parametrize(("name", "dimension"), [("flip", 3), ("flip_vertical", 2)])
def test_each_sample_is_mirrored_by_its_own_draw_at_every_scale(name: str, dimension: int) -> None:
    images = [torch.randn(4, 3, size, size) for size in (8, 4)]
    u = torch.full((4, len(AUGMENTS), 4), 0.9)
    u[1, list(AUGMENTS).index(name), 0] = u[3, list(AUGMENTS).index(name), 0] = 0.1
    result = augment(images, u, AugmentConfig(**{name: 0.5}))  # type: ignore[arg-type]
    for before, after in zip(images, result, strict=True):
        for sample in range(4):
            expected = before[sample].flip(dimension - 1) if sample in (1, 3) else before[sample]
            assert after[sample].equal(expected)


def test_gradients_go_through() -> None:
    image = torch.randn(2, 1, 2, 2, requires_grad=True)
    weights = torch.arange(8.0).view(2, 1, 2, 2)
    (result,) = augment([image], torch.zeros(2, len(AUGMENTS), 4), AugmentConfig(flip=1, flip_vertical=1))
    (result * weights).sum().backward()
    assert image.grad is not None
    assert image.grad.equal(weights.flip(2, 3))


def test_every_augmentation_has_its_probability() -> None:
    assert AUGMENTS.keys() == AugmentConfig.__dataclass_fields__.keys() - {"fakes"}
