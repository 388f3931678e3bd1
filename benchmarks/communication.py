"""What the processes of a run send each other, and what that costs: python -m benchmarks.communication

Message sizes follow from the networks alone (a test compares them with a real run of two processes). The times are a
model, not a measurement. Its assumptions:
- Every message is a ring all-reduce: each process sends 2 (N − 1) / N times its size, at the full rate of its link,
  after a fixed latency. No message overlaps with computing or with another, so the true loss is smaller.
- A GPU does 20 TFLOP/s on this work (change it with --tflops) and 2.29 GFLOP per image at width 64 and 64 px, four
  times that at width 128; the batch grows with the number of GPUs.
"""

import argparse
from collections.abc import Sequence

import torch
from torch import nn

from benchmarks.settings import PAPER, SETTINGS
from gan.config import Config
from gan.networks import NETWORKS
from gan.objectives import LOSSES

FIRST_BUCKET, BUCKET = 2**20, 25 * 2**20  # bytes; DDP's defaults
LINKS = {"NVLink 4 (450 GB/s, 10 µs)": (450e9, 10e-6), "100 Gb/s Ethernet (12.5 GB/s, 30 µs)": (12.5e9, 30e-6)}
GFLOP_PER_IMAGE = {64: 2.29, 128: 9.0}  # one iteration, by width


def messages(config: Config, processes: int) -> tuple[list[int], list[int]]:
    """Bytes of each all-reduce of one training iteration in float32: of gradients, and of BatchNorm's statistics."""
    with torch.device("meta"):
        G, D = NETWORKS[config.model.network](config)
    parts, updates, objective = config.accumulation, config.objective.n_critic, config.objective
    # Each pass sends statistics forward, and where it is differentiated their gradients backward. D's updates: D on
    # real and on fake; G's update: D on fake, and forward only on real where the loss is relative. G's forward
    # for D is only differentiated where it serves G's update too.
    shared = parts == updates == 1 and objective.shared_latents
    passes_d = parts * (4 * updates + 2 + LOSSES[objective.loss].relative)
    passes = ((G, 2 if shared else parts * (updates + 2)), (D, passes_d))
    statistics = [processes * 2 * layer.num_features * 4
                  for module, times in passes for layer in module.modules() if isinstance(layer, nn.BatchNorm2d)
                  for _ in range(times)]  # fmt: skip
    return buckets(G) + buckets(D) * updates, statistics * config.model.sync_batchnorm


def buckets(module: nn.Module) -> list[int]:
    """How DDP bundles the gradients: from the last parameter on, a bundle closes when it has reached its size."""
    sizes, limit, filled = [], FIRST_BUCKET, 0
    for parameter in reversed(list(module.parameters())):
        filled += parameter.numel() * 4
        if filled >= limit:
            sizes.append(filled)
            limit, filled = BUCKET, 0
    return [*sizes, filled] if filled else sizes


def seconds(sizes: Sequence[float], processes: int, bytes_per_s: float, latency_s: float) -> float:
    """Time of these all-reduces, one after the other."""
    return sum(2 * (processes - 1) / processes * size / bytes_per_s + latency_s for size in sizes)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--tflops", type=float, default=20, help="what a GPU does on these networks, in TFLOP/s")
    tflops = options.parse_args().tflops
    print("| settings | all-reduces per iteration | of them gradients | MB of gradients | kB of statistics, 8 GPUs |")
    print("|---|---|---|---|---|")
    for name, config in SETTINGS.items():
        gradients, statistics = messages(config, 8)
        print(f"| {name} | {len(gradients) + len(statistics)} | {len(gradients)} | {sum(gradients) / 1e6:.1f} |"
              f" {sum(statistics) / 1e3:.0f} |")  # fmt: skip
    print("\n| settings, 128 images per GPU | link | 2 | 8 | 32 | 8, gradients as fp16 |\n|---|---|---|---|---|---|")
    for name, config in PAPER.items():
        computing = GFLOP_PER_IMAGE[config.model.width] * 128 / (tflops * 1e3)
        for link, (rate, latency) in LINKS.items():
            shares = []
            for processes, factor in ((2, 1.0), (8, 1.0), (32, 1.0), (8, 0.5)):
                gradients, statistics = messages(config, processes)
                sizes = [size * factor for size in gradients] + statistics
                shares.append(f"{computing / (computing + seconds(sizes, processes, rate, latency)):.0%}")
            print(f"| {name} | {link} | {' | '.join(shares)} |")


if __name__ == "__main__":
    main()
