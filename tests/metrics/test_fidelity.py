"""torch-fidelity's own results, on weights that nobody has trained: nothing is downloaded."""

import builtins
import hashlib
import sys
import urllib.error
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import Dataset

from gan.errors import UsageError
from gan.metrics import METRICS
from gan.metrics.fidelity import Inception, inception_score


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with every weight of the network, drawn so that images differ in their features."""
    module = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3")
    path = tmp_path_factory.mktemp("weights") / "inception.pth"
    torch.save({}, path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module.FeatureExtractorInceptionV3, "load_state_dict", lambda self, state: None)
        network = module.FeatureExtractorInceptionV3("x", ["2048"], feature_extractor_weights_path=str(path))
    draws = torch.Generator().manual_seed(0)
    for name, value in network.state_dict().items():
        if value.dim() > 1:
            value.copy_(torch.randn(value.shape, generator=draws) * (2 / value[0].numel()) ** 0.5)
        elif name.endswith("bias"):
            value.copy_(torch.randn(value.shape, generator=draws) * 0.1)
    torch.save(network.state_dict(), path)
    return path


class Pictures(Dataset[Tensor]):
    """uint8 (N, 3, H, W), an image at a time."""

    def __init__(self, images: Tensor):
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        return self.images[index]


def test_all_values_are_those_of_torch_fidelity(weights: Path) -> None:
    torch_fidelity = pytest.importorskip("torch_fidelity")
    rng = np.random.default_rng(0)
    images = rng.integers(0, 160, (2, 16, 2, 2, 3)).repeat(8, 2).repeat(8, 3)
    images[1, 8:] = 255 * rng.integers(0, 2, (8, 16, 16, 3))  # some generated images are unlike the real ones
    real, fake = torch.from_numpy(images.astype(np.uint8))
    embed = Inception(weights).eval()
    with torch.no_grad():
        embedded = [embed(images) for images in (real, fake)]
    theirs = torch_fidelity.calculate_metrics(
        input1=Pictures(fake.permute(0, 3, 1, 2)),
        input2=Pictures(real.permute(0, 3, 1, 2)),
        **{"fid": True, "kid": True, "isc": True, "prc": True, "cuda": False, "verbose": False, "cache": False},
        feature_extractor="inception-v3-compat",
        feature_extractor_weights_path=str(weights),
        **{"kid_subsets": 1, "kid_subset_size": 16, "prc_neighborhood": 5, "samples_shuffle": False},
        save_cpu_ram=True,
    )
    assert ours(embedded, "fid")["fid"] == pytest.approx(theirs["frechet_inception_distance"], rel=1e-4)
    assert ours(embedded, "kid")["kid"] == pytest.approx(
        theirs["kernel_inception_distance_mean"], abs=2e-6
    )  # theirs in float32
    score = ours(embedded, "is")
    assert score["is"] == pytest.approx(theirs["inception_score_mean"], rel=1e-4)
    assert score["is_std"] == pytest.approx(theirs["inception_score_std"], rel=1e-4)
    shares = ours(embedded, "inception-prdc")
    assert shares["inception_precision"] == pytest.approx(theirs["precision"])
    assert shares["inception_recall"] == pytest.approx(theirs["recall"])
    assert theirs["frechet_inception_distance"] > 0.1
    assert 0 < theirs["precision"] < theirs["recall"]


def ours(embedded: list[Tensor], metric: str) -> dict[str, float]:
    """The metric's values from embeddings of real and generated images."""
    comparison = SimpleNamespace(embeddings=lambda network: embedded, on_main=lambda compute: compute())
    assert METRICS[metric].network == "inception"
    return METRICS[metric].compute(comparison)  # type: ignore[arg-type]


def test_the_inception_score_is_that_of_torch_fidelity() -> None:
    module = pytest.importorskip("torch_fidelity.metric_isc")
    logits = torch.randn(205, 7, generator=torch.Generator().manual_seed(0))
    theirs = module.isc_features_to_metric(logits, splits=10, shuffle=False)
    assert list(inception_score(logits).values()) == pytest.approx(list(theirs.values()), rel=1e-12)
    assert theirs["inception_score_mean"] > 1.2
    assert theirs["inception_score_std"] > 0.01


def test_the_protocol_names_the_weights(weights: Path) -> None:
    assert Inception(weights).protocol()["weights_sha256"] == hashlib.sha256(weights.read_bytes()).hexdigest()


def test_inception_score_of_certain_and_of_undecided_predictions() -> None:
    """Every class equally often and each for certain: as many as there are classes. All the same: 1."""
    certain = 2000 * torch.eye(4).repeat(20, 1)
    assert inception_score(certain) == pytest.approx({"is": 4, "is_std": 0})
    assert inception_score(certain[:1].repeat(20, 1))["is"] == pytest.approx(1)
    halves = torch.cat([certain[:40], certain[:1].repeat(40, 1)])  # five parts of score 4, five of score 1
    assert inception_score(halves) == pytest.approx({"is": 2.5, "is_std": 1.5})


def test_without_torch_fidelity(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("torch_fidelity", "torch_fidelity.feature_extractor_inceptionv3"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UsageError, match="need torch-fidelity: pip install"):
        Inception(None)


def test_without_the_internet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when nothing may be written where PyTorch keeps its downloads."""
    pytest.importorskip("torch_fidelity")

    def refuse(url: str, path: str) -> None:
        raise urllib.error.URLError(OSError(101, "Network is unreachable"))

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    with pytest.raises(
        UsageError, match=r"Network is unreachable.*; fetch https://\S+\.pth .*--inception-weights FILE"
    ):
        Inception(None)
    (tmp_path / "checkpoints").rmdir()
    (tmp_path / "checkpoints").touch()
    with pytest.raises(UsageError, match="--inception-weights FILE"):
        Inception(None)


def test_weights_that_are_none(weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "w.pth"
    with pytest.raises(UsageError, match=r"cannot read .*w\.pth: No such file"):
        Inception(path)
    path.write_bytes(weights.read_bytes()[:5000])
    with pytest.raises(UsageError, match="is damaged"):
        Inception(path)
    path.write_bytes(b"")
    with pytest.raises(UsageError, match="is damaged"):
        Inception(path)
    torch.save({"fc.weight": torch.zeros(3)}, path)
    with pytest.raises(UsageError, match="does not hold the weights"):
        Inception(path)
    torch.save([1, 2], path)
    with pytest.raises(UsageError, match="does not hold the weights"):
        Inception(path)


class Trap:
    """Unpickled, it would run something."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return builtins.exec, ("import builtins; builtins.sprung = True",)


def test_a_file_that_would_run_something_is_not_unpickled(weights: Path, tmp_path: Path) -> None:
    torch.save({**torch.load(weights, weights_only=True), "trap": Trap()}, tmp_path / "trap.pth")
    with pytest.raises(UsageError, match="holds more than weights"):
        Inception(tmp_path / "trap.pth")
    assert not hasattr(builtins, "sprung")
