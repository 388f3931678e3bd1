"""A run's log as curves."""

import numpy as np
import pytest

from gan.telemetry.history import Curve, smoothed, thinned


def test_few_points_with_no_peak_lost() -> None:
    values = np.zeros(100_000)
    values[[31_337, 70_000]] = 9, -7
    values[50_000:50_500] = np.nan
    curve = thinned(Curve(np.arange(100_000.0), values))
    assert len(curve.values) < 2000
    assert curve.kimg[[0, -1]].tolist() == [0, 99_999]
    assert (np.diff(curve.kimg) > 0).all()
    assert curve.values[curve.kimg == 31_337].tolist() == [9]
    assert curve.values[curve.kimg == 70_000].tolist() == [-7]
    assert np.isnan(curve.values).any(), "a gap stays a gap"


def test_smoothing_is_a_mean_that_stays_in_place() -> None:
    rng, kimg = np.random.default_rng(0), np.arange(5000.0)
    noisy = Curve(kimg, kimg / 1000 + rng.normal(size=5000))
    noisy.values[100] = np.nan
    smooth = smoothed(noisy, lambda values: values, lambda values: values)
    inner = slice(25, -25)
    assert np.abs(smooth.values - smooth.kimg / 1000)[inner].max() < 0.4
    levels = smoothed(Curve(kimg, 10.0 ** (kimg / 1000)), np.log10, lambda values: 10**values)
    assert np.log10(levels.values)[inner] == pytest.approx(levels.kimg[inner] / 1000, abs=0.01)
