"""The training loop against one written from the papers' formulas, and against its own promises."""

import copy
import json
import signal
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import binary_cross_entropy_with_logits, logsigmoid

from gan.augment import AUGMENTS, augment
from gan.config import AugmentConfig, Config, EmaConfig, EvalConfig, ObjectiveConfig, OptimizerConfig
from gan.data.batches import pyramid
from gan.data.pack import open_pack
from gan.latents import numbered
from gan.networks import NETWORKS
from gan.networks.dcgan import Discriminator, Generator
from gan.preemption import Preempted
from gan.processes import start_processes
from gan.randomness import initialise
from gan.run import train
from gan.run_folder import RunFolder
from gan.trained import load
from gan.trainer import Trainer
from gan.watchdog import Watchdog
from tests.conftest import ITERATIONS, SEED, checkpoint_of


def draws(purpose: str, index: int) -> np.random.Generator:
    return np.random.default_rng((SEED, zlib.crc32(purpose.encode()), index))


def length(network: torch.nn.Module) -> torch.Tensor:
    """Of the vector of all weights."""
    return torch.cat([weight.flatten() for weight in network.parameters()]).norm()


@torch.no_grad()
def fit(average: Generator) -> None:
    """BatchNorm's statistics over sixteen batches of 64 latents: the means of what comes into each layer, and of its
    variances."""
    layers = [layer for layer in average.modules() if isinstance(layer, torch.nn.BatchNorm2d)]
    seen: dict[torch.nn.Module, list[torch.Tensor]] = {layer: [] for layer in layers}
    hooks = [layer.register_forward_pre_hook(lambda layer, x: seen[layer].append(x[0].clone())) for layer in layers]
    for index in range(16):
        average.train()(torch.from_numpy(draws("statistics", index).standard_normal((64, 5))))
    for layer, hook in zip(layers, hooks, strict=True):
        inputs = torch.stack(seen[layer]).transpose(1, 2).flatten(2)  # (16, channels, values)
        layer.running_mean = inputs.mean((0, 2))
        layer.running_var = inputs.var(2).mean(0)
        layer.num_batches_tracked = torch.tensor(16)
        hook.remove()


class ByHand:
    """The same run in plain PyTorch: nothing shared with the trainer but the networks and their first weights."""

    def __init__(self, pixels: np.ndarray, saturating: bool):
        self.saturating = saturating
        self.G, self.average = (Generator(16, 3, z_dim=5, width=4) for _ in range(2))
        self.D = Discriminator(16, 3, width=4, norm_first=True)
        for name, network in (("generator", self.G), ("generator", self.average), ("discriminator", self.D)):
            initialise(network, SEED, name)
            network.double()
        self.adam_g = torch.optim.Adam(self.G.parameters(), 1e-3, (0.3, 0.95), foreach=False)
        self.adam_d = torch.optim.Adam(self.D.parameters(), 3e-3, (0.4, 0.9), foreach=False)
        passes = [draws("order", epoch).permutation(20) for epoch in range(3)]
        self.stream = pixels[np.concatenate(passes)].transpose(0, 3, 1, 2).astype(np.float64) / 127.5 - 1
        self.log: list[dict[str, float]] = []
        for iteration in range(ITERATIONS):
            self.iterate(iteration)
        fit(self.average)

    def iterate(self, i: int) -> None:
        real = torch.from_numpy(self.stream[8 * i : 8 * i + 8])
        fake = self.G(torch.from_numpy(draws("latents", i).standard_normal((8, 5))))[0]
        on_real, on_fake = self.D([real]), self.D([fake.detach()])
        one, zero = torch.ones_like(on_real), torch.zeros_like(on_fake)
        loss_d = (binary_cross_entropy_with_logits(on_real, one) + binary_cross_entropy_with_logits(on_fake, zero)) / 2
        self.D.zero_grad()
        loss_d.backward()
        self.adam_d.step()
        after = self.D([fake])
        target = zero if self.saturating else one
        loss_g = binary_cross_entropy_with_logits(after, target) * (-1 if self.saturating else 1)
        self.G.zero_grad()
        loss_g.backward()
        self.adam_g.step()
        d = min(0.25, (1 + i) / (10 + i))
        with torch.no_grad():
            for mean, weight in zip(self.average.parameters(), self.G.parameters(), strict=True):
                mean.copy_(d * mean + (1 - d) * weight)
        scores = {"score/real": torch.sigmoid(on_real).mean(), "score/fake": torch.sigmoid(on_fake).mean()}
        lengths = {"weights/d": length(self.D), "weights/g": length(self.G)}
        values = {"loss/d": loss_d, "loss/g": loss_g, **scores, **lengths}
        self.log.append({name: value.item() for name, value in values.items()})


@pytest.mark.parametrize("loss", ["non-saturating", "saturating"])
def test_a_run_equals_the_same_run_by_hand(loss: str, config: Config) -> None:
    """Weights, average, log and samples, over three passes through the images. In float64 the two orders of summation
    differ by rounding alone: 1e-12 is a few thousand units in the last place of the weights."""
    config = replace(config, objective=ObjectiveConfig(loss=loss))
    train(config)
    run = Path(str(config.out))
    expected = ByHand(np.asarray(open_pack(config).images), saturating=loss == "saturating")
    found = checkpoint_of(run, ITERATIONS)
    for group, module in (
        ("generator", expected.G),
        ("generator_ema", expected.average),
        ("discriminator", expected.D),
    ):
        for name, tensor in module.state_dict().items():
            torch.testing.assert_close(found.tensors[group][name], tensor, rtol=0, atol=1e-12, msg=f"{group} {name}")
    log = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    for entry, values in zip(log, expected.log, strict=True):
        assert {name: entry[name] for name in values} == pytest.approx(values, rel=0, abs=1e-12)

    z = torch.from_numpy(draws("samples", 0).standard_normal((64, 5)))
    with torch.no_grad():
        images = expected.average.eval()(z)[0]
    tiles = ((images.float() + 1) * 127.5).round().byte().permute(0, 2, 3, 1).reshape(8, 8, 16, 16, 3)
    with Image.open(run / "samples" / f"iteration-{ITERATIONS:08d}.png") as grid:
        assert (np.asarray(grid) == tiles.transpose(1, 2).reshape(128, 128, 3).numpy()).all()
    one = np.random.default_rng((3, zlib.crc32(b"sample"), 1)).standard_normal((1, 5))
    with torch.no_grad():
        second = expected.average(torch.from_numpy(one))[0]
        image = load(run)(numbered(3, [1], 5))
    torch.testing.assert_close(image, second, rtol=0, atol=1e-12)


def test_a_wasserstein_run_equals_the_same_run_by_hand(config: Config) -> None:
    """Two updates of D for one of G, fresh latents, RMSprop, clipping, sums over the batch, a falling learning rate:
    the same run in plain PyTorch, over five passes through the images."""
    objective = ObjectiveConfig(loss="wasserstein", n_critic=2, clip=0.04, shared_latents=False, reduction="sum")
    optimizer = OptimizerConfig(method="rmsprop", lr=1e-3, beta2=0.8, eps=1e-5)
    falling = replace(optimizer, decay_from=2, decay_to=8)
    config = replace(config, objective=objective, optim_d=optimizer, optim_g=falling, ema=EmaConfig(decay=0))
    train(config)
    pixels = np.asarray(open_pack(config).images)
    stream = pixels[np.concatenate([draws("order", epoch).permutation(20) for epoch in range(5)])]
    stream = stream.transpose(0, 3, 1, 2).astype(np.float64) / 127.5 - 1
    G, D = Generator(16, 3, z_dim=5, width=4), Discriminator(16, 3, width=4, norm_first=True)
    for name, network in (("generator", G), ("discriminator", D)):
        initialise(network, SEED, name)
        network.double()
    rms_d = torch.optim.RMSprop(D.parameters(), 1e-3, 0.8, 1e-5, foreach=False)
    rms_g = torch.optim.RMSprop(G.parameters(), 1e-3, 0.8, 1e-5, foreach=False)
    for i in range(ITERATIONS):
        for k in (2 * i, 2 * i + 1):
            fake = G(torch.from_numpy(draws("latents", k).standard_normal((8, 5))))[0].detach()
            real = torch.from_numpy(stream[8 * k : 8 * k + 8])
            D.zero_grad()
            loss_d = (-D([real])).sum() + D([fake]).sum()
            loss_d.backward()
            rms_d.step()
            with torch.no_grad():
                for weight in D.parameters():
                    weight.clamp_(-0.04, 0.04)
        G.zero_grad()
        (-D(G(torch.from_numpy(draws("latents for g", i).standard_normal((8, 5)))))).sum().backward()
        rms_g.param_groups[0]["lr"] = 1e-3 * min(1, (8 - i) / 6)
        rms_g.step()
    found = checkpoint_of(Path(str(config.out)), ITERATIONS)
    average = copy.deepcopy(G)
    fit(average)
    for group, module in (("generator", G), ("generator_ema", average), ("discriminator", D)):
        for name, tensor in module.state_dict().items():
            torch.testing.assert_close(found.tensors[group][name], tensor, rtol=0, atol=1e-12, msg=f"{group} {name}")
    log = [json.loads(line) for line in (Path(str(config.out)) / "log.jsonl").read_text().splitlines()]
    assert [entry["images"] for entry in log] == [16 * (i + 1) for i in range(ITERATIONS)]
    assert log[-1]["loss/d"] == pytest.approx(loss_d.item() / 8, abs=1e-12)  # the log has means


@pytest.mark.parametrize("fakes", [True, False])
def test_every_draw_of_a_run_by_hand(fakes: bool, config: Config) -> None:
    """Which draws go where: two updates of D on the latents that G's update shares, a loss that looks at D's last real
    images, augmentation (of generated ones too or not) and dropout with draws of their own for each pass, a penalty on
    mixtures."""
    model = replace(config.model, norm_d="layer", dropout=0.3)
    objective = ObjectiveConfig(loss="relativistic", n_critic=2, penalty="gp", penalty_weight=3)
    options = AugmentConfig(flip=0.5, shift=0.5, translation=0.6, fakes=fakes)
    config = replace(config, model=model, objective=objective, augment=options)
    train(config)
    pixels = np.asarray(open_pack(config).images)
    stream = pixels[np.concatenate([draws("order", epoch).permutation(20) for epoch in range(5)])]
    stream = stream.transpose(0, 3, 1, 2).astype(np.float64) / 127.5 - 1
    G, D = NETWORKS["dcgan"](config)
    for name, network in (("generator", G), ("discriminator", D)):
        initialise(network, SEED, name)
        network.double()
    adam_d = torch.optim.Adam(D.parameters(), 3e-3, (0.4, 0.9), foreach=False)
    adam_g = torch.optim.Adam(G.parameters(), 1e-3, (0.3, 0.95), foreach=False)

    def seen(image: torch.Tensor, which: str, k: int) -> list[torch.Tensor]:
        if which != "real" and not fakes:
            return [image]
        u = torch.from_numpy(draws(f"augment {which}", k).random((8, len(AUGMENTS), 4)))
        return augment([image], u, options, torch.ones(3, 1, 1, dtype=torch.float64))

    for i in range(ITERATIONS):
        for k in (2 * i, 2 * i + 1):
            z = torch.from_numpy(draws("latents", k).standard_normal((8, 5)))
            real = seen(torch.from_numpy(stream[8 * k : 8 * k + 8]), "real", k)
            fake = seen(G(z)[0].detach(), "fake for d", k)
            u = torch.from_numpy(draws("critic", k).random((8, 1 + 2 * D.uniforms)))
            for_real, for_fake = u[:, 1 : 1 + D.uniforms], u[:, 1 + D.uniforms :]
            loss_d = -logsigmoid(D(real, for_real) - D(fake, for_fake)).mean()
            mix = u[:, 0].view(-1, 1, 1, 1)
            between = (mix * real[0] + (1 - mix) * fake[0]).requires_grad_()
            (slope,) = torch.autograd.grad(D([between], for_real).sum(), between, create_graph=True)
            D.zero_grad()
            (loss_d + 3 * (slope.flatten(1).norm(dim=1) - 1).square().mean()).backward()
            adam_d.step()
        u = torch.from_numpy(draws("critic for g", k).random((8, D.uniforms)))
        G.zero_grad()
        (-logsigmoid(D(seen(G(z)[0], "fake for g", k), u) - D(real, u)).mean()).backward()
        adam_g.step()
    found = checkpoint_of(Path(str(config.out)), ITERATIONS)
    for group, module in (("generator", G), ("discriminator", D)):
        for name, tensor in module.named_parameters():
            torch.testing.assert_close(
                found.tensors[group][name], tensor.data, rtol=0, atol=1e-11, msg=f"{group} {name}"
            )


def test_real_scales_are_augmented_one_by_one_as_generated_ones_are(config: Config) -> None:
    """Were the finest augmented and then shrunk, D could tell real from generated by half pixels."""
    config = replace(
        config, model=replace(config.model, network="msg"), augment=AugmentConfig(translation=1, fakes=True)
    )
    folder = RunFolder(Path(str(config.out)))
    folder.create()
    pack = open_pack(config)
    trainer = Trainer(config, start_processes(config), folder, pack)
    scales = pyramid(trainer.batches.at(8), 3)
    u = torch.from_numpy(draws("augment real", 1).random((8, len(AUGMENTS), 4)))
    expected = augment(scales, u, config.augment, torch.ones(3, 1, 1, dtype=torch.float64))
    for one, two in zip(trainer.real_images(1, 0), expected, strict=True):
        assert one.equal(two)


def test_a_stop_right_after_an_evaluation_keeps_its_score(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """That iteration is saved already, with the score."""
    config = replace(config, eval=EvalConfig(every=1, count=20))
    evaluate = Trainer.evaluate

    def stopped(trainer: Trainer, watchdog: Watchdog) -> None:
        evaluate(trainer, watchdog)
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(Trainer, "evaluate", stopped)
    with pytest.raises(Preempted, match="saved at iteration 1 of"):
        train(config)
    assert checkpoint_of(Path(str(config.out)), 1).state["score"]["metric"] == config.eval.metric
