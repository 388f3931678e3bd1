"""What the generator makes of the same latents all along."""

import numpy as np
import torch
from torch import Tensor, nn

from gan.config import Config
from gan.data.batches import to_unit_range
from gan.latents import walk
from gan.networks import Images
from gan.randomness import latents
from gan.telemetry.grids import evenly
from gan.telemetry.health import Diversity
from gan.telemetry.recorder import Recorder

LOOKED_AT = 64
"""Samples, and real images, whose diversity is compared."""
WALKERS, STOPS, STEPS = 16, 4, 12
"""Images that change side by side in a latent walk; latents that each passes; frames from one to the next."""


class Samples:
    """Of G itself, which is what a collapse shows in first, and of its average. For one process alone: nothing here is
    a collective, and nothing changes the networks."""

    def __init__(self, config: Config, G: nn.Module, G_ema: nn.Module, images: np.ndarray, device: torch.device):
        """`images`: the data, uint8 (N, H, W, C)."""
        self.config, self.G, self.G_ema, self.device = config, G, G_ema, device
        self.dtype = getattr(torch, config.dtype)
        real = torch.from_numpy(images[evenly(len(images), LOOKED_AT)])
        self.diversity = Diversity(to_unit_range(real, self.dtype).contiguous().to(device), len(images))
        self.z = self.latents("samples", config.samples)
        self.z_health = self.latents("health", len(real))

    def latents(self, purpose: str, count: int) -> Tensor:
        """Fixed latents (count, z_dim) of this run; another purpose, other ones."""
        return latents(self.config.seed, purpose, 0, count, self.config.model.z_dim).to(self.device, self.dtype)

    @torch.no_grad()
    def draw(self, G: nn.Module, z: Tensor) -> Images:
        """Images by BatchNorm's running statistics, as they are drawn after training."""
        training = G.training
        try:
            return G.eval()(z)
        finally:
            G.train(training)

    def health(self) -> dict[str, float]:
        """How the newest G's images differ from each other. Reads the device."""
        return self.diversity.of(self.draw(self.G, self.z_health)[0].contiguous())

    def record(self, recorder: Recorder, iteration: int) -> None:
        """A grid of the average's images, one for each coarser scale, and one of G's own."""
        for image in self.draw(self.G_ema, self.z):
            side = image.shape[-1]
            coarser = "" if side == self.config.resolution else f"-{side}px"
            recorder.picture(f"iteration-{iteration:08d}{coarser}", image, iteration)
        recorder.picture(f"iteration-{iteration:08d}-raw", self.draw(self.G, self.z)[0], iteration)

    def walk(self, recorder: Recorder, iteration: int) -> None:
        """Through the latents, from image to image of the average, as a moving picture."""
        stops = self.latents("walk", STOPS * WALKERS).unflatten(0, (STOPS, WALKERS))
        frames = (self.draw(self.G_ema, z)[0] for z in walk(stops, STEPS))  # one at a time: together they fill a GPU
        recorder.video("walk", frames, iteration)
