"""The figures of a run's health against values computed otherwise, and the verdicts on runs that go well and badly."""

import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from benchmarks.verdicts import CASES, one_mode
from benchmarks.verdicts import log_of as log_of_case
from gan.config import Config, ModelConfig, ObjectiveConfig
from gan.networks import NETWORKS
from gan.networks.dcgan import Discriminator
from gan.objectives import LOSSES
from gan.run import train
from gan.steps import CriticStep
from gan.telemetry.health import TWIN, VERDICTS, WINDOW, Diversity, Judge, reached, recent, separation
from gan.telemetry.tracking import Tracker
from tests.conftest import log_of

MANY = 10**12
"""Images in a set so large that no two draws from it are the same."""


def pictures(count: int, side: int = 32, seed: int = 0) -> Tensor:
    """Smooth random images (count, 3, side, side) in [−1, 1]."""
    coarse = torch.from_numpy(np.random.default_rng(seed).uniform(-1, 1, (count, 3, 8, 8)))
    return torch.nn.functional.interpolate(coarse, size=side, mode="bilinear")


def test_separation() -> None:
    real, fake = torch.tensor([[2.0], [0.4], [-1.0], [3.0]]), torch.tensor([[1.0], [0.5], [-3.0], [3.0]])
    values = {name: value.item() for name, value in separation(real, fake, 0.0).items()}
    assert values == pytest.approx({"health/sign": 0.5, "health/accuracy": 0.625, "health/margin": 0.725})
    assert separation(real, fake, 0.5)["health/sign"].item() == 0.0
    assert "health/sign" not in separation(real, fake, None)


class SameAnswer(Discriminator):
    """To every image."""

    def __init__(self, answer: float):
        torch.nn.Module.__init__(self)
        self.answer, self.dropout = answer, 0.0

    @property
    def uniforms(self) -> int:
        return 0

    def forward(self, images: list[Tensor], u: Tensor | None = None) -> Tensor:
        return torch.full((len(images[0]), 1), self.answer)


def test_separation_in_d_s_own_step() -> None:
    class Brightness(SameAnswer):
        def forward(self, images: list[Tensor], u: Tensor | None = None) -> Tensor:
            return images[0].mean((1, 2, 3))[:, None]

    real, fake = torch.full((2, 3, 4, 4), 0.75), torch.full((2, 3, 4, 4), -0.25)
    for loss, sign in (("non-saturating", 1.0), ("least-squares", 1.0), ("wasserstein", None)):
        step = CriticStep(Brightness(0), ObjectiveConfig(loss=loss))
        statistics = step([real], [fake], torch.zeros(2, 0))[1]
        assert statistics["health/margin"].item() == 1
        assert statistics["health/accuracy"].item() == 1
        assert (statistics["health/sign"].item() if sign else None) == sign
        assert ("health/sign" in statistics) == (sign is not None)


@pytest.mark.parametrize("loss", LOSSES)
def test_the_loss_of_a_d_that_can_tell_nothing(loss: str) -> None:
    """Is that of the best answer it can give to every image alike."""
    images, losses = [torch.zeros(2, 3, 4, 4)], []
    for answer in np.linspace(-2, 2, 401):
        step = CriticStep(SameAnswer(float(answer)), ObjectiveConfig(loss=loss))
        losses.append(step(images, images, torch.zeros(2, 0))[0].item())
    assert step.undecided == pytest.approx(min(losses), abs=1e-6)


def test_diversity_against_loops() -> None:
    real, fake = pictures(6), 0.5 * pictures(6, seed=1)
    values = Diversity(real, MANY).of(fake)

    def spread(images: Tensor) -> float:
        return float(np.mean([((a - b) ** 2).mean() ** 0.5 for a, b in itertools.combinations(images.numpy(), 2)]))

    assert values["health/diversity"] == pytest.approx(spread(fake) / spread(real), rel=1e-6)
    assert values["health/structure"] == pytest.approx(values["health/diversity"], rel=0.2)


def test_enlarged_pixel_art_has_structure_too() -> None:
    """Its finest band is flat, whatever the image."""
    real, fake = (pictures(6, seed=seed).repeat_interleave(2, 2).repeat_interleave(2, 3) for seed in (0, 1))
    assert Diversity(real, MANY).of(real)["health/structure"] == pytest.approx(1)
    assert 0.5 < Diversity(real, MANY).of(fake)["health/structure"] <= 1


def test_copies_among_the_real_images_do_not_hide_those_among_samples() -> None:
    """More than 25, where products would be taken for differences."""
    single = pictures(32)
    real, twins = single.repeat(2, 1, 1, 1), pictures(32, seed=1).repeat(2, 1, 1, 1)
    twins[32:] += 1e-3
    assert Diversity(real, MANY).of(twins)["health/duplicates"] == pytest.approx(
        Diversity(single, MANY).of(twins)["health/duplicates"], abs=0.01)  # fmt: skip
    assert Diversity(real, MANY).of(twins)["health/duplicates"] > 0.9


def test_of_the_data_itself() -> None:
    real = pictures(32)
    expected = {"diversity": 1, "structure": 1, "duplicates": 0, "saturated": 0, "constant": 0}
    assert Diversity(real, MANY).of(real.clone()) == pytest.approx(
        {f"health/{name}": value for name, value in expected.items()}, abs=1e-9
    )


@pytest.mark.parametrize("modes", [1, 4])
def test_of_a_few_images_again_and_again(modes: int) -> None:
    values = Diversity(pictures(32), MANY).of(pictures(modes, seed=1).repeat(32 // modes, 1, 1, 1))
    assert values["health/duplicates"] == 1
    assert values["health/constant"] == (modes == 1)
    assert values["health/diversity"] == (pytest.approx(0, abs=1e-6) if modes == 1 else pytest.approx(0.78, abs=0.1))


def test_one_image_under_noise_has_little_structure() -> None:
    noise = 0.5 * torch.from_numpy(np.random.default_rng(2).standard_normal((32, 3, 32, 32)))
    values = Diversity(pictures(32), MANY).of(pictures(1, seed=1) + noise)
    assert values["health/diversity"] > 0.8
    assert values["health/structure"] < 0.8


def test_what_is_near_depends_on_what_is_usual() -> None:
    """Far from each other in the data, but for one pair; samples come in pairs at a distance."""
    base = pictures(32)
    real = torch.cat([base, base[:1] + 1e-3])
    rows = [*real]
    usual = np.median([min(float(((a - b) ** 2).mean() ** 0.5) for b in rows if b is not a) for a in rows])
    for factor, share in ((0.5, 1.0), (1.5, 0.0)):
        samples = pictures(16, seed=1)
        fake = torch.cat([samples, samples + factor * TWIN * float(usual), pictures(1, seed=2)])
        assert Diversity(real, MANY).of(fake)["health/duplicates"] == pytest.approx(share * 32 / 33, abs=1e-4)
    assert TWIN == 0.2


def test_draws_with_replacement_from_few_images_are_what_they_are() -> None:
    real = pictures(64)
    shares = []
    for seed in range(20):
        chosen = torch.from_numpy(np.random.default_rng(seed).integers(0, 64, 64))
        shares.append(Diversity(real, 64).of(real[chosen])["health/duplicates"])
    assert abs(np.mean(shares)) < 0.1
    assert Diversity(real, 64).of(real[:1].repeat(64, 1, 1, 1))["health/duplicates"] == 1


def test_near_copies_in_the_data_are_no_fault_of_the_samples() -> None:
    near = pictures(4).repeat(8, 1, 1, 1) + 0.01 * pictures(32, seed=3)
    assert Diversity(near, MANY).of(near)["health/duplicates"] == pytest.approx(0, abs=1e-9)


def test_saturated_and_constant_values() -> None:
    real, fake = pictures(16), pictures(16, seed=1)
    fake[:, :, :16] = 1
    values = Diversity(real, MANY).of(fake)
    assert values["health/saturated"] == pytest.approx(0.5, abs=0.01)
    assert values["health/constant"] == 0.5
    assert Diversity(fake, MANY).of(fake) == pytest.approx(Diversity(real, MANY).of(real), abs=1e-6)
    assert Diversity(fake, MANY).of(fake.sign())["health/saturated"] == 1, "however many are there in the data"


def test_data_that_nothing_can_be_compared_with() -> None:
    white = torch.ones(16, 3, 32, 32)
    values = Diversity(white, MANY).of(pictures(16))
    assert [name for name, value in values.items() if np.isnan(value)] == [
        f"health/{name}" for name in ("diversity", "structure", "saturated", "constant")
    ]


HEALTHY: dict[str, Any] = {"loss/d": 0.4, "loss/g": 2.0, "health/diversity": 0.9, "health/duplicates": 0.0,
                           "health/saturated": -0.2, "amp/skipped_d": 0, "amp/skipped_g": 0}  # fmt: skip
JUDGE = Judge(0.69)
BAD: dict[str, list[dict[str, Any]]] = {
    "mode collapse": [{"health/duplicates": 0.8}, {"health/diversity": 0.05}],
    "discriminator winning": [{"loss/d": 0.02}],
    "diverged": [{"health/saturated": 0.8, "health/constant": 0.7}],
}


def entries(*values: dict[str, Any], every: int = 50) -> list[dict[str, Any]]:
    return [{"iteration": every * (number + 1), **HEALTHY, **value} for number, value in enumerate(values)]


@pytest.mark.parametrize(("verdict", "sign"), [(verdict, sign) for verdict in BAD for sign in BAD[verdict]])
def test_a_verdict_takes_a_while(verdict: str, sign: dict[str, Any]) -> None:
    for every in (10, 50, 250, 2000):
        lasting = max(3, WINDOW // every)
        log = entries(*[{}] * lasting, *[sign] * lasting, *[{}] * lasting, every=every)
        verdicts = [JUDGE(log[: number + 1], best=0.9) for number in range(len(log))]
        alarms = [number for number, word in enumerate(verdicts) if word != "healthy" and word != "starting"]
        assert {verdicts[number] for number in alarms} == {verdict}
        assert alarms == list(range(alarms[0], alarms[-1] + 1))
        assert alarms[0] >= lasting + lasting // 2, "not at once"
        assert alarms[0] < 2 * lasting
        assert verdicts[-1] == "healthy"
    flicker = entries(*[sign if number % 3 == 0 else {} for number in range(60)])
    assert {JUDGE(flicker[: number + 1]) for number in range(60)} == {"starting", "healthy"}


def test_twins_at_the_beginning_are_no_collapse_but_later_they_are() -> None:
    grey = entries(*[{"health/duplicates": 0.9, "health/diversity": 0.2}] * 30)
    assert JUDGE(grey, best=0.34) == "healthy"
    assert JUDGE(grey, best=0.8) == "mode collapse"


def test_updates_that_are_skipped_again_and_again() -> None:
    for every, player, n_critic, verdict in ((6, "g", 1, "diverged"), (4, "d", 1, "healthy"), (6, "g", 5, "diverged"),
                                             (20, "d", 5, "healthy"), (30, "d", 5, "diverged")):  # fmt: skip
        log = entries(*[{f"amp/skipped_{player}": every * number} for number in range(12)])
        assert Judge(0.69, n_critic)(log) == verdict


def test_a_run_that_branches_off_has_to_show_itself_first() -> None:
    log = [{"iteration": 600 + 5 * number, **HEALTHY, "loss/d": 0.0} for number in range(1, 110)]
    verdicts = [JUDGE(log[:number]) for number in range(1, len(log) + 1)]
    assert verdicts.index("discriminator winning") == 99
    assert set(verdicts[:99]) == {"starting"}


def test_what_a_run_has_reached_is_not_what_it_began_with() -> None:
    assert reached({"iteration": WINDOW, "health/diversity": 0.9}) == 0
    assert reached({"iteration": WINDOW + 1, "health/diversity": 0.9}) == 0.9
    assert reached({"iteration": WINDOW + 1, "health/diversity": None}) == 0


def test_what_a_log_may_lack() -> None:
    assert JUDGE([]) == "starting"
    assert JUDGE([{"iteration": 50 * number} for number in range(1, 30)]) == "healthy"
    assert JUDGE([{"iteration": 50 * number, "loss/d": None, "verdict": "x"} for number in range(1, 30)]) == "healthy"
    assert Judge(0)(entries(*[{"loss/d": -3.0}] * 30)) == "healthy", "a critic's loss has no such scale"


def test_a_verdict_needs_the_newest_entries_alone() -> None:
    log = entries(*[{"health/diversity": value} for value in np.random.default_rng(0).uniform(0, 0.2, 200)], every=7)
    kept: list[dict[str, Any]] = []
    for number in range(len(log)):
        kept = list(recent([*kept, log[number]]))
        assert JUDGE(kept) == JUDGE(log[: number + 1])
    assert len(kept) < 80


@pytest.fixture
def little_pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number, picture in enumerate(pictures(64, 16)):
        pixels = ((picture.permute(1, 2, 0) + 1) * 127.5).byte().numpy()
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return folder


@pytest.mark.parametrize("case", CASES)
def test_the_benchmark_trains_each_of_its_cases(case: str, images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(NETWORKS, "one-mode", one_mode)
    small = f"--resolution 16 --model.width 4 --batch-size 8 --iterations 2 --log-every 1 --data {images}"
    log = log_of_case(case, small.split())
    assert [entry["iteration"] for entry in log] == [1, 2]
    assert (log[-1]["health/diversity"] < 1e-3) == (case == "one mode")


@pytest.mark.parametrize("case", ["healthy", "one mode", pytest.param("saturating", marks=pytest.mark.slow)])
def test_real_runs(case: str, config: Config, little_pictures: Path, monkeypatch: pytest.MonkeyPatch,
                   capsys: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    monkeypatch.setitem(NETWORKS, "one-mode", one_mode)
    model = ModelConfig(z_dim=16, width=8, norm_first=True)
    run = replace(
        config, data=str(little_pictures), iterations=600, batch_size=16, log_every=25, dtype="float32", model=model
    )
    if case == "one mode":
        run = replace(run, model=replace(model, network="one-mode"))
    if case == "saturating":
        run = replace(run, objective=ObjectiveConfig(loss="saturating"), model=replace(model, width=24))
    alerts: list[str] = []
    monkeypatch.setattr(Tracker, "alert", lambda tracker, title, text, level: alerts.append(title))
    train(run)
    assert run.out is not None
    log = log_of(run.out)
    print(json.dumps(log[-1]))
    expected = {"healthy": "healthy", "one mode": "mode collapse", "saturating": "discriminator winning"}[case]
    verdicts = {entry["verdict"] for entry in log}
    assert verdicts <= {"starting", "healthy", expected}
    assert log[-1]["verdict"] == expected
    assert alerts == [*([expected] if expected in VERDICTS else []), "finished at iteration 600"]
    said = capsys.readouterr().out
    for name, verdict in VERDICTS.items():
        assert (f"Warning: {name}" in said) == (name == expected)
        assert (verdict.advice in said) == (name == expected)
