"""Speed and memory, measured. The package comes before torch, whose threads it keeps from spinning."""

import gan  # noqa: F401
