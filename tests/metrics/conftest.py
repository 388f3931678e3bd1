"""Sets of images to compare, and one process to compare them on."""

import dataclasses
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from gan.data.pixels import to_pixels
from gan.data.sources import Source, Sprites, Zip
from gan.metrics import EMBEDDINGS, METRICS
from gan.metrics.comparison import Comparison, Shards, Values

SIDE, COUNT = 32, 200
Compare = Callable[[np.ndarray, np.ndarray, str], Values]


@dataclasses.dataclass
class Processes:
    """What Shards needs of an Accelerator: this is process `process_index` of `num_processes`, and none answers."""

    num_processes: int = 1
    process_index: int = 0
    device = torch.device("cpu")

    @property
    def is_main_process(self) -> bool:
        return self.process_index == 0

    @property
    def is_local_main_process(self) -> bool:
        return self.is_main_process

    def gather(self, own: Tensor) -> Tensor:
        return own


def rows_of(images: np.ndarray, rows: range) -> np.ndarray:
    return images[rows.start : rows.stop]


@pytest.fixture(scope="session")
def compare() -> Compare:
    """(real, fake) uint8 (n, H, W, 3) and the name of a metric → its values."""

    def compare(real: np.ndarray, fake: np.ndarray, metric: str) -> Values:
        shards = Shards(Processes(), len(real), real.shape[1])  # type: ignore[arg-type]
        name = METRICS[metric].network
        networks = {name: EMBEDDINGS[name](real.shape[1], None)} if name else {}
        both = [partial(rows_of, images) for images in (real, fake)]
        return METRICS[metric].compute(Comparison(shards, both[0], both[1], real.shape[1], 0, networks, {}))

    return compare


def two_sets(source: Source) -> tuple[np.ndarray, np.ndarray]:
    """Two disjoint sets of COUNT images, from all over the source: uint8 (COUNT, SIDE, SIDE, 3) each."""
    chosen = np.random.default_rng(0).permutation(len(source))[: 2 * COUNT]
    images = np.stack([to_pixels(source.open(int(index)), SIDE, 3, "crop", "white") for index in chosen])
    return images[:COUNT], images[COUNT:]


@pytest.fixture(scope="session", params=["sprites", "others"])
def sets(request: pytest.FixtureRequest) -> tuple[np.ndarray, np.ndarray]:
    """Two sets of the same kind: the project's own images, and the largest zip in $GAN_TEST_IMAGES."""
    if request.param == "sprites":
        return two_sets(Sprites(SIDE))
    folder = os.environ.get("GAN_TEST_IMAGES")
    if not folder:
        pytest.skip("set GAN_TEST_IMAGES to a folder of image sets to run on them")
    return two_sets(max(map(Zip, Path(folder).glob("*.zip")), key=len))
