"""Run by test_batchnorm.py through the launcher: BatchNorm over processes against torch's own over the whole batch."""

import sys

import torch
from accelerate import PartialState
from torch import Tensor, nn

from gan.networks.batchnorm import GlobalBatchNorm2d, synchronise

state = PartialState(cpu=True)
PER_PROCESS = 3
rows = slice(state.process_index * PER_PROCESS, (state.process_index + 1) * PER_PROCESS)


def data(offset: float = 0.5) -> Tensor:
    """The whole batch: float64 (N, 4, 5, 2), of another mean and spread in every channel."""
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(PER_PROCESS * state.num_processes, 4, 5, 2, generator=draw, dtype=torch.float64)
    return (x * torch.arange(1, 5).view(-1, 1, 1) + offset * torch.arange(4).view(-1, 1, 1)).requires_grad_()


def layer(kind: type[nn.BatchNorm2d]) -> nn.BatchNorm2d:
    made = kind(4, momentum=0.3).double()
    nn.init.uniform_(made.weight, 0.5, 2, generator=torch.Generator().manual_seed(1))
    nn.init.uniform_(made.bias, -1, 1, generator=torch.Generator().manual_seed(2))
    return made


def penalised(norm: nn.BatchNorm2d, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Output, its input gradient, and a loss of both: differentiating it takes second derivatives."""
    out = norm(x)
    (slope,) = torch.autograd.grad(out.pow(3).sum(), x, create_graph=True)
    return out, slope, out.sin().sum() + slope.square().sum()


def check_derivatives() -> None:
    whole, mine = data(), data().detach()[rows].clone().requires_grad_()
    reference, ours = layer(nn.BatchNorm2d), layer(GlobalBatchNorm2d)
    *expected, loss = penalised(reference, whole)
    loss.backward()
    *found, loss = penalised(ours, mine)
    loss.backward()
    assert whole.grad is not None
    assert mine.grad is not None
    for one, two in zip([*expected, whole.grad], [*found, mine.grad], strict=True):
        torch.testing.assert_close(two, one[rows], rtol=1e-12, atol=1e-12)
    for one, two in zip(reference.parameters(), ours.parameters(), strict=True):
        assert two.grad is not None
        torch.distributed.all_reduce(two.grad)
        torch.testing.assert_close(two.grad, one.grad, rtol=1e-12, atol=1e-12)
    for one, two in zip(reference.buffers(), ours.buffers(), strict=True):
        torch.testing.assert_close(two, one, rtol=1e-14, atol=1e-14)
    torch.testing.assert_close(ours.eval()(mine), reference.eval()(whole)[rows], rtol=1e-14, atol=1e-14)


def check_precision() -> None:
    """A mean 1,000 times the spread, where E[x²] − E[x]² would lose all digits of the variance; and bf16 in and out."""
    whole = data(offset=1000).detach()
    expected = layer(nn.BatchNorm2d)(whole)[rows]
    ours = layer(GlobalBatchNorm2d).float()
    torch.testing.assert_close(ours(whole[rows].float()).double(), expected, rtol=0, atol=2e-3)  # 3,000 · 2⁻²⁴ · a few
    small = data().detach()
    half = layer(GlobalBatchNorm2d).float()(small[rows].bfloat16())
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.double(), layer(nn.BatchNorm2d)(small)[rows], rtol=2**-8, atol=0.02)


def check_conversion() -> None:
    """torch's kernel on CUDA; names and parameters stay."""
    for device, kind in (("cuda", nn.SyncBatchNorm), ("cpu", GlobalBatchNorm2d)):
        network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Sequential(nn.BatchNorm2d(4), nn.ReLU()))
        parameters, names = list(network.parameters()), list(network.state_dict())
        converted = synchronise(network, torch.device(device))
        assert isinstance(converted[1][0], kind)  # type: ignore[index]
        assert list(converted.state_dict()) == names
        assert all(one is two for one, two in zip(parameters, converted.parameters(), strict=True))


def check_torchs_kernel() -> None:
    """First derivatives only; processes may share a GPU, since gloo carries CUDA tensors too."""
    device = torch.device("cuda", state.process_index % torch.cuda.device_count())
    whole, mine = data(), data().detach()[rows].to(device).requires_grad_()
    reference, network = layer(nn.BatchNorm2d), nn.Sequential(layer(nn.BatchNorm2d))
    ours = synchronise(network.to(device), device)[0]
    assert isinstance(ours, nn.SyncBatchNorm)
    expected, found = reference(whole), ours(mine)
    expected.sin().sum().backward()
    found.sin().sum().backward()
    torch.testing.assert_close(found.cpu(), expected[rows], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(mine.grad.cpu(), whole.grad[rows], rtol=1e-12, atol=1e-12)  # type: ignore[union-attr,index]
    for one, two in zip(reference.buffers(), ours.buffers(), strict=True):
        torch.testing.assert_close(two.cpu(), one, rtol=1e-12, atol=1e-12)


if sys.argv[1:] == ["torch"]:
    check_torchs_kernel()
else:
    check_derivatives()
    check_precision()
    check_conversion()
print(f"process {state.process_index} agrees")
state.destroy_process_group()
