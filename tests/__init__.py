"""The tests. The package comes first: it tells OpenMP not to spin, which only counts before torch is imported."""

import gan as gan
