import pytest
import torch
from torch import nn

from gan.networks.blocks import PointTranspose, WholeConv


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(
    ("layer", "plain", "shape"),
    [
        (PointTranspose(7, 5, 4), nn.ConvTranspose2d, (3, 7, 1, 1)),
        (WholeConv(7, 2, 4), nn.Conv2d, (3, 7, 4, 4)),
    ],
)
def test_products_are_convolutions(layer: PointTranspose | WholeConv, plain: type[nn.Module], shape: tuple[int, ...],
                                   layout: torch.memory_format) -> None:  # fmt: skip
    """In values, gradients and second derivatives, with the images' layout kept."""
    layer = layer.double().to(memory_format=layout)  # type: ignore[call-overload]
    x = torch.randn(shape, dtype=torch.float64).contiguous(memory_format=layout).requires_grad_()
    found = []
    for kind in (type(layer), plain):
        y = kind.forward(layer, x)  # type: ignore[operator]
        (by_x,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
        found.append([y, by_x, *torch.autograd.grad(by_x.square().sum(), [x, layer.weight])])
    for ours, torchs in zip(*found, strict=True):
        torch.testing.assert_close(ours, torchs, rtol=1e-13, atol=1e-12)
    assert layer(x).is_contiguous(memory_format=layout)
