"""A trained generator as a module, from wherever it lies."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gan.config import Config, DataOptions, ModelConfig
from gan.errors import UsageError
from gan.latents import numbered
from gan.networks.batchnorm import estimate_statistics
from gan.telemetry.grids import to_uint8
from gan.trained import TrainedGenerator, block_size, build, draw, from_json, load, to_json
from tests.conftest import assert_same_tensors, checkpoint_of, gan, untrained_run


def test_a_run_a_checkpoint_and_an_export_are_one_generator(tmp_path: Path) -> None:
    run = untrained_run(tmp_path / "run", channels=4)
    found = checkpoint_of(run, 1)
    assert gan("export", run, tmp_path / "out") == 0
    z = torch.from_numpy(np.random.default_rng(0).standard_normal((3, 8)))
    places = (run, found.path, tmp_path / "out")
    for G in map(load, places):
        assert_same_tensors(G.network.state_dict(), found.tensors["generator_ema"])
        assert not G.training
        assert (G.z_dim, G.channels, G.resolution) == (8, 4, 16)
        assert G(z).shape == (3, 4, 16, 16)
        assert G(z).abs().max() <= 1
        alone = G(z[:1])[0]
        assert torch.allclose(G(z)[0], alone, atol=1e-5), "an image does not depend on the others of its batch"
    assert_same_tensors(load(run, "raw").network.state_dict(), found.tensors["generator"])


def test_the_import_of_the_package_is_not_that_of_torch() -> None:
    code = "import sys, gan; assert 'torch' not in sys.modules; from gan import load, TrainedGenerator; print(load)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "function load" in result.stdout


def test_what_is_no_generator(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    with pytest.raises(UsageError, match="neither a run folder nor"):
        load(tmp_path / "run")
    (tmp_path / "run" / "config.yaml").write_text("")
    with pytest.raises(UsageError, match="no checkpoint yet"):
        load(tmp_path / "run")
    run = untrained_run(tmp_path / "whole")
    assert gan("export", run, tmp_path / "out") == 0
    with pytest.raises(UsageError, match="chosen by gan export"):
        load(tmp_path / "out", "raw")
    with pytest.raises(UsageError, match="weights 'EMA': choose ema or raw"):
        load(run, "EMA")


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "model.safetensors").unlink(),
        lambda folder: (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:-9]),
        lambda folder: (folder / "config.json").write_text("{"),
        lambda folder: (folder / "config.json").write_text("[]"),
        lambda folder: (folder / "config.json").write_text("{}"),
        lambda folder: (folder / "config.json").write_text("null"),
        lambda folder: changed(folder, "dtype", "nonexistent"),
        lambda folder: changed(folder, "from_the_future", 1),
        lambda folder: changed(folder, "resolution", 32),
        lambda folder: changed(folder, "resolution", 17),
    ],
)
def test_a_damaged_export_is_one_sentence(damage, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    run = untrained_run(tmp_path / "run")
    assert gan("export", run, tmp_path / "out") == 0
    damage(tmp_path / "out")
    with pytest.raises(UsageError, match=r"no whole exported folder|--resolution 17"):
        load(tmp_path / "out")


@pytest.mark.parametrize("name", ["./runs/typo", "/nowhere/model", "typo", "a/b/c"])
def test_a_mistyped_folder_is_not_looked_for_on_the_hub(name: str) -> None:
    with pytest.raises(UsageError, match="there is no folder"):
        TrainedGenerator.from_pretrained(name)


def test_a_link_to_a_checkpoint(tmp_path: Path) -> None:
    run = untrained_run(tmp_path / "run")
    (tmp_path / "best").symlink_to(checkpoint_of(run, 1).path)
    assert_same_tensors(load(tmp_path / "best").state_dict(), load(run).state_dict())


def changed(folder: Path, name: str, value: object) -> None:
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**settings, name: value}))


def test_an_image_is_the_same_however_many_are_drawn(tmp_path: Path) -> None:
    """Every bit: three and five images at a time differ from sixty-four in the last ones, on two threads."""
    config = Config(resolution=64, iterations=1)
    G = TrainedGenerator(config, build(config))
    for buffer in G.buffers():
        buffer.fill_(0.05)
    z = numbered(0, range(70), 100)
    whole = np.concatenate(list(draw(G, z)))
    assert [len(part) for part in draw(G, z)] == [64, 6]
    with torch.no_grad():
        assert np.abs(whole.astype(int) - to_uint8(G(z))).max() <= 1
    seen: list[int] = []
    G.register_forward_pre_hook(lambda module, inputs: seen.append(len(inputs[0])))
    for rows in ([3], [0, 1, 2], range(60, 70), [69, 5, 64]):
        assert (next(draw(G, z[list(rows)])) == whole[list(rows)]).all()
    assert seen == [block_size(64)] * 4


def test_settings_of_an_export_are_those_of_its_run() -> None:
    model, options = ModelConfig(network="msg", width=3), DataOptions(fit="pad", background="#123456")
    config = Config(resolution=32, channels=1, dtype="float64", iterations=1, model=model, data_options=options)
    again = from_json(to_json(config))
    assert (again.model, again.resolution, again.channels, again.dtype) == (config.model, 32, 1, "float64")
    assert (again.data_options.fit, again.data_options.background) == ("pad", "#123456")
    assert again.data == ""
    assert "sprites" not in to_json(config)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(2, momentum=0.3)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x)


@pytest.mark.parametrize("training", [True, False])
def test_standing_statistics_are_means_over_all_batches(training: bool) -> None:
    net = Net().double().train(training)
    batches = torch.from_numpy(np.random.default_rng(0).normal(3, 2, (4, 5, 2, 3, 3)))
    estimate_statistics(net, batches)
    by_hand = batches.transpose(1, 2).flatten(2)  # (batches, channels, values)
    assert torch.allclose(net.norm.running_mean, by_hand.mean((0, 2)), rtol=1e-12)  # type: ignore[arg-type]
    assert torch.allclose(net.norm.running_var, by_hand.var(2).mean(0), rtol=1e-12)  # type: ignore[arg-type]
    assert net.norm.momentum == 0.3
    assert net.training is net.norm.training is training
