import torch
from torch import nn

from gan.ema import update_ema


def test_average_follows_its_formula() -> None:
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)).double()
    average = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)).double()
    expected = {name: value.clone() for name, value in average.named_parameters()}
    for iteration in range(20):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter))
        model[1].running_mean.copy_(torch.randn(2))  # type: ignore[union-attr, operator]
        model[1].num_batches_tracked.add_(1)  # type: ignore[union-attr, operator]
        update_ema(average, model, 0.6, iteration)
        d = min(0.6, (1 + iteration) / (10 + iteration))
        for name, parameter in model.named_parameters():
            expected[name] = d * expected[name] + (1 - d) * parameter.detach()
    for name, value in average.named_parameters():
        torch.testing.assert_close(value, expected[name], rtol=0, atol=1e-14)
    assert average[1].running_mean.equal(torch.zeros(2, dtype=torch.float64)), "belongs to other weights"  # type: ignore[union-attr, operator]


def test_decay_zero_is_a_copy() -> None:
    model, average = nn.Linear(3, 2), nn.Linear(3, 2)
    update_ema(average, model, 0.0, 100)
    assert average.weight.equal(model.weight)
