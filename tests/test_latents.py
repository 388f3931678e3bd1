"""Latents: numbered, mixed, cut off, and on the way from one to another."""

import statistics

import numpy as np
import pytest
import torch

from gan.latents import latent, numbered, parse_mix, parse_seeds, slerp, truncated, walk


def test_a_latent_depends_on_its_seed_and_number_alone() -> None:
    three = numbered(5, range(3), 7)
    assert three.shape == (3, 7)
    assert three[2].equal(numbered(5, [2], 7)[0])
    assert three[2].equal(latent(5, 2, 7))
    assert not three[2].equal(latent(6, 2, 7))
    assert numbered(0, range(200), 50).std().item() == pytest.approx(1, abs=0.02)  # of 10,000 draws: σ 0.007


def test_ranges_and_single_seeds() -> None:
    assert parse_seeds(["0-3"]) == (0, 1, 2, 3)
    assert parse_seeds(["7, 3-4", "3"]) == (7, 3, 4, 3)
    for wrong in ("", "3-", "a", "1,,2", "-1"):
        with pytest.raises(ValueError, match="neither a seed nor a range"):
            parse_seeds([wrong])
    with pytest.raises(ValueError, match="ends before it begins"):
        parse_seeds(["5-3"])
    with pytest.raises(ValueError, match="more than 1000000 seeds"):
        parse_seeds(["0-99999999999"])


@pytest.mark.parametrize(
    ("text", "weights"),
    [
        ("3", {3: 1}),
        ("3-5+7", {3: 1, 5: -1, 7: 1}),
        ("-3 + 5", {3: -1, 5: 1}),
        ("0.5*3+.5*7", {3: 0.5, 7: 0.5}),
        ("2*3-3+4-4", {3: 1}),
    ],
)
def test_sums_of_seeds(text: str, weights: dict[int, float]) -> None:
    """Σ w z, divided so that its variance is 1 again."""
    mix = parse_mix(text)
    assert mix.weights == weights
    plain = sum((weight * latent(seed, 0, 30) for seed, weight in weights.items()), torch.zeros(30))
    length = sum(weight**2 for weight in weights.values()) ** 0.5
    assert torch.allclose(mix.latent(30) * length, plain, rtol=1e-12)


def test_a_sum_is_as_likely_as_what_g_was_trained_on() -> None:
    assert parse_mix("3-5+2*7").latent(20_000).std().item() == pytest.approx(1, abs=0.02)  # σ 0.005


@pytest.mark.parametrize(("text", "why"), [("", "no sum"), ("3+", "no sum"), ("3*5*7", "no sum"), ("a", "no sum"),
                                           ("3-3", "comes to nothing"), ("0*4", "comes to nothing")])  # fmt: skip
def test_what_is_no_sum_of_seeds(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        parse_mix(text)


def test_truncation_keeps_the_rank_of_every_number() -> None:
    """The quantiles of a normal distribution between ± limit, by the standard library's own normal distribution."""
    normal, limit = statistics.NormalDist(), 0.8
    z = torch.tensor([[-3.0, -0.8, -0.1, 0.0, 0.5, 2.0, 6.0, 40.0]], dtype=torch.float64)
    low, high = normal.cdf(-limit), normal.cdf(limit)
    expected = [normal.inv_cdf(low + (high - low) * normal.cdf(float(value))) for value in z[0, :-1]]
    assert truncated(z, limit)[0, :-1].tolist() == pytest.approx(expected, abs=1e-9)
    assert truncated(z, limit)[0, -1] == limit
    assert truncated(z[:, :6], 30).tolist()[0] == pytest.approx(z[0, :6].tolist(), abs=1e-9), "far off: as it was"
    many = truncated(numbered(0, range(20), 1000), limit)
    assert many.abs().max() <= limit
    assert many.std().item() == pytest.approx(0.4424, abs=0.005)  # √(1 − 2 a φ(a) / (Φ(a) − Φ(−a))) for a = 0.8


def test_a_walk_passes_its_stops_on_great_circles() -> None:
    stops = torch.from_numpy(np.random.default_rng(0).standard_normal((3, 2, 50)))
    path = walk(stops, 4)
    assert path.shape == (12, 2, 50)
    assert torch.allclose(path[::4], stops, rtol=1e-14)
    unit = torch.nn.functional.normalize(stops, dim=-1)
    half = walk(unit, 4)[2]
    middle = torch.nn.functional.normalize(unit[0] + unit[1], dim=-1)
    assert torch.allclose(half, middle, atol=1e-12)
    assert torch.allclose(walk(unit, 4).norm(dim=-1), torch.ones(12, 2, dtype=torch.float64))
    there = slerp(unit[0], unit[0], torch.tensor(0.3, dtype=torch.float64))
    assert torch.allclose(there, unit[0]), "no way to go"
