"""The players. To add a network: build its G and D here under a name in NETWORKS."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from gan.networks.blocks import Layers
from gan.networks.dcgan import Discriminator, Generator, Images

if TYPE_CHECKING:
    from gan.config import Config

__all__ = ["NETWORKS", "Images"]


def dcgan(config: "Config", scales: int = 1) -> tuple[Generator, Discriminator]:
    """The two players of Radford et al. 2016 (https://arxiv.org/abs/1511.06434), at so many scales."""
    model = config.model
    for_g = Layers(model.norm_g, model.norm_momentum, model.kernel)
    for_d = Layers(model.norm_d, model.norm_momentum, model.kernel, model.spectral_norm)
    G = Generator(config.resolution, config.channels, model.z_dim, model.width, for_g, model.stem == "dense", scales)
    D = Discriminator(config.resolution, config.channels, model.width, model.norm_first, for_d, model.head == "map",
                      scales, model.injection, model.dropout)  # fmt: skip
    return G, D


def msg(config: "Config") -> tuple[Generator, Discriminator]:
    """A DCGAN with an image at every resolution down to D's last: 4×4, or 8×8 before a score map."""
    coarsest = 8 if config.model.head == "map" else 4
    return dcgan(config, scales=(config.resolution // coarsest).bit_length())


NETWORKS: dict[str, Callable[["Config"], tuple[Generator, Discriminator]]] = {"dcgan": dcgan, "msg": msg}
