"""The settings that benchmarks tabulate: every recipe, and the two networks of the literature at their usual size."""

from gan.config import Config, ModelConfig, read_recipe
from gan.listing import RECIPES

PAPER = {f"width {width}, 64 px": Config(model=ModelConfig(width=width, norm_first=True)) for width in (64, 128)}
SETTINGS = {**{path.stem: read_recipe(path.stem) for path in sorted(RECIPES.glob("*.yaml"))}, **PAPER}
