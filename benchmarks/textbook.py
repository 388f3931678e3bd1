"""A DCGAN as tutorials write it, to compare with: NCHW, ImageFolder and DataLoader, each loss read in each iteration,
D's gradients computed in G's update too. The networks have the channels of this project's."""

import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder

from gan.networks.blocks import channels_at

Z_DIM = 100


def generator(resolution: int, width: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    channels, size = Z_DIM, 4
    while size < resolution:
        stride, padding = (1, 0) if size == 4 else (2, 1)
        layers += [nn.ConvTranspose2d(channels, channels_at(size, width), 4, stride, padding, bias=False)]
        layers += [nn.BatchNorm2d(channels_at(size, width)), nn.ReLU(True)]
        channels, size = channels_at(size, width), 2 * size
    return nn.Sequential(*layers, nn.ConvTranspose2d(channels, 3, 4, 2, 1, bias=False), nn.Tanh())


def discriminator(resolution: int, width: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    channels, size = 3, resolution // 2
    while size >= 4:
        layers += [nn.Conv2d(channels, channels_at(size, width), 4, 2, 1, bias=False)]
        layers += [] if channels == 3 else [nn.BatchNorm2d(channels_at(size, width))]
        layers += [nn.LeakyReLU(0.2, inplace=True)]
        channels, size = channels_at(size, width), size // 2
    return nn.Sequential(*layers, nn.Conv2d(channels, 1, 4, 1, 0, bias=False), nn.Sigmoid())


def batches(folder: Path, resolution: int, batch_size: int) -> Iterator[Tensor]:
    """Without end, decoded on the way."""
    steps = [transforms.Resize(resolution), transforms.CenterCrop(resolution), transforms.ToTensor(),
             transforms.Normalize((0.5,) * 3, (0.5,) * 3)]  # fmt: skip
    loader = DataLoader(ImageFolder(str(folder), transforms.Compose(steps)), batch_size, shuffle=True, num_workers=2,
                        drop_last=True, persistent_workers=True)  # fmt: skip
    while True:
        yield from (images for images, _ in loader)


def train(real_batches: Iterable[Tensor], resolution: int, width: int, iterations: int,
          device: torch.device, clock: Callable[[], float] = time.perf_counter) -> list[float]:  # fmt: skip
    """Seconds of each iteration, by this clock."""
    G, D = generator(resolution, width).to(device), discriminator(resolution, width).to(device)
    criterion = nn.BCELoss()
    optimizers = [torch.optim.Adam(network.parameters(), 2e-4, (0.5, 0.999)) for network in (D, G)]
    seconds, began = [], clock()
    for _, images in zip(range(iterations), real_batches, strict=False):
        D.zero_grad()
        real = images.to(device)
        label = torch.full((len(real),), 1.0, device=device)
        output = D(real).view(-1)
        loss_real = criterion(output, label)
        loss_real.backward()
        score = output.mean().item()
        fake = G(torch.randn(len(real), Z_DIM, 1, 1, device=device))
        label.fill_(0.0)
        output = D(fake.detach()).view(-1)
        loss_fake = criterion(output, label)
        loss_fake.backward()
        score = output.mean().item()
        optimizers[0].step()
        G.zero_grad()
        label.fill_(1.0)
        output = D(fake).view(-1)
        loss_g = criterion(output, label)
        loss_g.backward()
        score = output.mean().item()
        optimizers[1].step()
        losses = (loss_real + loss_fake).item(), loss_g.item(), score
        assert all(value == value for value in losses)
        seconds.append(clock() - began)
        began = clock()
    return seconds
