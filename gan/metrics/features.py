"""Embeddings of images by a fixed random network: no training, no download, the same for everybody.

Random convolutions tell images apart well enough to compare sets of them, also where images are nothing like those
that Inception was trained on (Naeem et al. 2020, https://arxiv.org/abs/2002.09797, section 3.2 and 4).
"""

import hashlib
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, avg_pool2d, conv2d, leaky_relu, pad

from gan.randomness import uniform

WIDTH, SLOPE, SEED = 32, 0.2, 0


class RandomNetwork(nn.Module):
    """uint8 (N, H, H, 3), H a power of two from 8 on → float32 (N, d); an image's embedding depends on it alone.

    At every scale from H to 4: a 3×3 convolution to 32 channels, leaky ReLU, their means over the image (from 8×8 on
    over its quarters), half the resolution. Weights are uniform draws of the variance of He et al. 2015
    (https://arxiv.org/abs/1502.01852, eq. 14), from one fixed seed, the same at every resolution.
    """

    def __init__(self, resolution: int):
        super().__init__()
        self.scales = resolution.bit_length() - 2  # 64 … 4 is five
        for scale in range(self.scales):
            inputs = 3 if scale == 0 else WIDTH
            draws = 2 * uniform(SEED, "metrics/features", scale, WIDTH, inputs, 3, 3) - 1  # variance 1/3
            self.register_buffer(f"weight_{scale}", (draws * (6 / (9 * inputs)) ** 0.5).float())

    def forward(self, pixels: Tensor) -> Tensor:
        """uint8 (N, H, W, 3) → (N, features)."""
        x, means = pixels.permute(0, 3, 1, 2).float() / 127.5 - 1, []
        for scale in range(self.scales):
            x = avg_pool2d(x, 2) if scale else x
            x = leaky_relu(conv2d(pad(x, (1, 1, 1, 1), "reflect"), self.get_buffer(f"weight_{scale}")), SLOPE)
            means.append(adaptive_avg_pool2d(x, 2 if x.shape[-1] <= 8 else 1).flatten(1))
        return torch.cat(means, 1)

    def protocol(self) -> dict[str, Any]:
        """Which embedding this is."""
        digest = hashlib.sha256(b"".join(weight.cpu().numpy().tobytes() for weight in self.buffers()))
        return {"embedding": "fixed random network", "weights_sha256": digest.hexdigest()}
