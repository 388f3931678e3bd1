from dataclasses import replace

import pytest
import torch
from torch import Tensor

from gan.augment import AUGMENTS, augment, background_of
from gan.config import AugmentConfig, Config, DataOptions
from gan.data.batches import pyramid

BACKGROUND = torch.tensor([0.5, -0.5, 1.0]).view(3, 1, 1)


def only(name: str, images: list[Tensor], *rows: list[float]) -> list[Tensor]:
    """Augmentation `name` with these draws, (whether, three for how), one row per sample; it is due below 0.5."""
    u = torch.full((len(rows), len(AUGMENTS), 4), 0.9)
    u[:, list(AUGMENTS).index(name)] = torch.tensor(rows)
    return augment(images, u, AugmentConfig(**{name: 0.5}), BACKGROUND)  # type: ignore[arg-type]


@pytest.mark.parametrize(("name", "dimension"), [("flip", 3), ("flip_vertical", 2)])
def test_each_sample_is_mirrored_by_its_own_draw_at_every_scale(name: str, dimension: int) -> None:
    images = [torch.randn(4, 3, size, size) for size in (8, 4)]
    result = only(name, images, *([draw, 0, 0, 0] for draw in (0.9, 0.1, 0.9, 0.1)))
    for before, after in zip(images, result, strict=True):
        for sample in range(4):
            expected = before[sample].flip(dimension - 1) if sample in (1, 3) else before[sample]
            assert after[sample].equal(expected)


def test_shift_moves_in_four_directions_and_fills_up_with_the_background() -> None:
    image = torch.randn(1, 3, 16, 16).expand(4, 3, 16, 16)
    (result,) = only("shift", [image], *([0, 0.99, direction, 0] for direction in (0.1, 0.3, 0.6, 0.9)))  # by 2 pixels
    kept = [(slice(2, None), slice(None)), (slice(None, -2), slice(None)),
            (slice(None), slice(2, None)), (slice(None), slice(None, -2))]  # fmt: skip
    came = [kept[1], kept[0], kept[3], kept[2]]
    for sample, (now, before) in enumerate(zip(kept, came, strict=True)):
        expected = BACKGROUND.expand(3, 16, 16).clone()
        expected[:, now[0], now[1]] = image[sample][:, before[0], before[1]]
        assert result[sample].equal(expected)


def test_shift_moves_all_scales_of_a_sample_together() -> None:
    images = pyramid(torch.randn(1, 3, 32, 32), 3)
    moved = only("shift", images, [0, 0.999, 0.1, 0])  # an eighth: 4, 2 and 1 pixels down
    for before, after in zip(images, moved, strict=True):
        distance = before.shape[2] // 8
        assert after[:, :, distance:].equal(before[:, :, :-distance])


def test_translation_and_cutout() -> None:
    image = torch.randn(2, 3, 16, 16)
    (moved,) = only("translation", [image], [0, 0.999, 0.0, 0], [0.9, 0, 0, 0])  # 2 down, 2 left
    assert moved[0, :, 2:, :-2].equal(image[0, :, :-2, 2:])
    assert not moved[0, :, :2].any()
    assert not moved[0, :, :, -2:].any()
    assert moved[1].equal(image[1])
    (cut,) = only("cutout", [image], [0, 0.5, 0.0, 0], [0.9, 0, 0, 0])  # around the middle of the left edge
    covered = torch.zeros(16, 16, dtype=torch.bool)
    covered[4:12, :4] = True
    assert cut[0].equal(torch.where(covered, 0, image[0]))
    assert cut[1].equal(image[1])


def test_color_is_diffaugments() -> None:
    """Brightness, saturation, contrast in this order, written out for one image; alpha stays."""
    image = torch.randn(1, 4, 8, 8, dtype=torch.float64)
    u = torch.zeros(1, len(AUGMENTS), 4, dtype=torch.float64)
    u[0, list(AUGMENTS).index("color")] = torch.tensor([0, 0.7, 0.2, 0.9], dtype=torch.float64)
    (result,) = augment([image], u, AugmentConfig(color=1), BACKGROUND)
    x = image[:, :3] + 0.2
    x = x.mean(1, keepdim=True) + (x - x.mean(1, keepdim=True)) * 0.4
    x = x.mean() + (x - x.mean()) * 1.4
    torch.testing.assert_close(result[:, :3], x, rtol=1e-12, atol=1e-12)
    assert result[:, 3].equal(image[:, 3])


@pytest.mark.parametrize("name", AUGMENTS)
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_gradients_go_through(name: str, channels: int) -> None:
    image = torch.randn(2, channels, 8, 8, dtype=torch.float64, requires_grad=True)
    u = torch.rand(2, len(AUGMENTS), 4, dtype=torch.float64)
    options, ground = AugmentConfig(**{name: 1}), torch.zeros(channels, 1, 1, dtype=torch.float64)  # type: ignore[arg-type]
    assert torch.autograd.gradcheck(lambda x: augment([x], u, options, ground)[0], image)


def test_every_augmentation_has_its_probability() -> None:
    assert AUGMENTS.keys() == AugmentConfig.__dataclass_fields__.keys() - {"fakes"}


def test_the_background_as_d_sees_it() -> None:
    cpu = torch.device("cpu")
    for channels, expected in ((1, [-1.0]), (3, [-1.0, -1.0, -1.0]), (4, [-1.0, -1.0, -1.0, -1.0])):
        config = Config(channels=channels, data_options=DataOptions(background="black"))
        assert background_of(config, cpu, torch.float32).flatten().tolist() == expected
    config = replace(config, data_options=DataOptions(background="#ff0080"))
    assert background_of(config, cpu, torch.float32).flatten().tolist() == pytest.approx([1, -1, 1 / 255, -1], abs=1e-6)
