"""The players. To add a network: build its G and D here under a name in NETWORKS."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from torch import nn

from gan.networks.dcgan import Discriminator, Generator, Images

if TYPE_CHECKING:
    from gan.config import Config

__all__ = ["NETWORKS", "Images"]


def dcgan(config: "Config") -> tuple[nn.Module, nn.Module]:
    model = config.model
    G = Generator(config.resolution, config.channels, model.z_dim, model.width, model.norm_g)
    D = Discriminator(config.resolution, config.channels, model.width, model.norm_first, model.norm_d)
    return G, D


NETWORKS: dict[str, Callable[["Config"], tuple[nn.Module, nn.Module]]] = {"dcgan": dcgan}
