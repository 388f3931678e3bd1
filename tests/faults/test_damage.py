"""Damaged and hostile files: found, named, never run and never used."""

import pickle
import random
import re
from pathlib import Path

import pytest
import torch

from gan import checkpoint
from gan.config import read_recipe
from gan.data.pack import open_pack
from gan.errors import RunError, UsageError
from tests.conftest import ROOT
from tests.data.packs import config_for


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    values = {"weight": torch.randn(40, 5), "bias": torch.randn(40)}
    groups = {name: values for name in ("generator", "generator_ema", "discriminator", "optimizer_g", "optimizer_d")}
    return checkpoint.save(tmp_path / "checkpoints", 7, groups, {"trajectory": {"seed": 0}}, keep=2)


@pytest.mark.parametrize("fault", ["bit", "cut"])
def test_two_hundred_damages_and_not_one_is_loaded(fault: str, saved: Path) -> None:
    chance, files = random.Random(1), sorted(saved.iterdir())
    hit = set()
    for number in range(200):
        path = files[number % len(files)]
        whole = bytearray(path.read_bytes())
        place = chance.randrange(len(whole))
        damaged = whole[:place] if fault == "cut" else whole.copy()
        if fault == "bit":
            damaged[place] ^= 1 << chance.randrange(8)
        path.write_bytes(damaged)
        with pytest.raises(RunError, match=re.escape(str(saved))):
            checkpoint.load(saved)
        path.write_bytes(whole)
        hit.add(path.name)
    assert len(hit) == 7
    assert checkpoint.load(saved).state["iteration"] == 7


class Payload:
    """Unpickled, it leaves a file."""

    def __init__(self, proof: Path):
        self.proof = proof

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.proof,)


@pytest.mark.parametrize("protocol", [0, 5])
def test_a_planted_pickle_is_never_run(protocol: int, saved: Path, images: Path, tmp_path: Path) -> None:
    proof = tmp_path / "it was run"
    attack = pickle.dumps(Payload(proof), protocol)
    pickle.loads(attack)
    assert proof.exists(), "the attack works where something falls for it"
    proof.unlink()
    for path in saved.iterdir():
        whole = path.read_bytes()
        path.write_bytes(attack)
        with pytest.raises(RunError):
            checkpoint.load(saved)
        path.write_bytes(whole)
    pack = open_pack(config_for(images, tmp_path / "cache"))
    for path in pack.folder.iterdir():
        path.write_bytes(attack)
    assert open_pack(config_for(images, tmp_path / "cache")).content == pack.content
    (tmp_path / "config.yaml").write_bytes(attack)
    with pytest.raises(UsageError):
        read_recipe(str(tmp_path / "config.yaml"))
    assert not proof.exists()


def test_a_recipe_makes_no_objects(tmp_path: Path) -> None:
    proof = tmp_path / "it was run"
    (tmp_path / "config.yaml").write_text(f"recipe: !!python/object/apply:os.mkdir ['{proof}']\n")
    with pytest.raises(UsageError, match="cannot read the recipe"):
        read_recipe(str(tmp_path / "config.yaml"))
    assert not proof.exists()


def test_nothing_in_the_code_could_unpickle() -> None:
    """The weights of Inception, which exist as a pickle only, are looked through with weights_only first; a test in
    tests/metrics has a planted one refused."""
    for path in (ROOT / "gan").rglob("*.py"):
        words = re.findall(
            r"pickle\.(?!UnpicklingError)|(?<!safetensors\.)torch\.load\((?!.*weights_only=True)|allow_pickle=True|yaml\.(?:unsafe_|full_)?load\(|marshal|shelve",
            path.read_text(),
        )
        assert not words, f"{path}: {words}"
