"""Train a GAN on a folder of images, on whatever machines you have."""

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gan.trained import TrainedGenerator, load

__all__ = ["TrainedGenerator", "load"]
__version__ = "0.1.0"

# Before torch loads its OpenMP: an idle thread sleeps soon instead of spinning for its partner. When two jobs shared
# two cores, the quickstart's bare step ran at 68 images/s in each with libgomp's default and at 840 with this; alone,
# within 3 % of the default.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")


def __getattr__(name: str) -> Any:
    """`from gan import load` imports torch; `import gan` does not."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from gan import trained

    return getattr(trained, name)
