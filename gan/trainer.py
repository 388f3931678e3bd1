"""The loop: config → players → iterations, with a record and checkpoints on the way."""

import copy
import math
import os
import shlex
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from gan import checkpoint
from gan.augment import AUGMENTS, augment
from gan.checkpoint import Checkpoint
from gan.config import AdamConfig, Config, trajectory
from gan.data.batches import Batches
from gan.data.pack import Pack, open_pack
from gan.ema import update_ema
from gan.errors import ProcessError, UsageError
from gan.memory import advice, is_out_of_memory
from gan.networks import NETWORKS, Images
from gan.networks.batchnorm import synchronise
from gan.objectives import LOSSES
from gan.player import Player
from gan.processes import check_agreement, check_batch, from_main, precision, start_processes, together
from gan.randomness import initialise, latents, uniform
from gan.run_folder import RunFolder
from gan.steps import CriticStep, Statistics, frozen, generator_loss, mean_of
from gan.telemetry.console import say
from gan.telemetry.recorder import Recorder
from gan.watchdog import Watchdog

SAMPLES = 64


def train(config: Config) -> None:
    """A whole run: new, or going on from its newest checkpoint."""
    accelerator = start_processes(config)
    folder = RunFolder(Path(str(config.out)))
    with Watchdog(accelerator, config.distributed.timeout) as watchdog:
        together(accelerator, lambda: check_places(config, folder))
        together(accelerator, folder.create if accelerator.is_main_process else lambda: None)
        try:
            pack = open_images(config, accelerator)
        except BaseException:
            folder.remove_if_empty()
            raise
        lock = together(accelerator, folder.lock if accelerator.is_main_process else lambda: None)
        trainer = Trainer(config, accelerator, folder, pack.images, pack.content)
        watchdog.report = trainer.record_failure
        try:
            with plain_faults(config, accelerator, watchdog):
                trainer.run(watchdog)
        except BaseException as error:
            trainer.record_failure(str(error) or type(error).__name__, preempted=isinstance(error, KeyboardInterrupt))
            raise
        finally:
            if lock is not None:
                lock.release()
    accelerator.state.destroy_process_group()


@contextmanager
def plain_faults(config: Config, accelerator: Accelerator, watchdog: Watchdog) -> Iterator[None]:
    """Faults of the machines, inside, become a sentence. Raises ProcessError."""
    try:
        yield
    except RuntimeError as error:
        if is_out_of_memory(error):
            fault = advice(config, accelerator.num_processes, precision(accelerator), accelerator.device)
        elif lost := watchdog.lost():
            fault = f"{lost}. The run ends here; the same command goes on from its newest checkpoint."
        else:
            raise
        raise ProcessError(f"process {accelerator.process_index}: {fault}") from error


def check_places(config: Config, folder: RunFolder) -> None:
    """Refuse a run folder among the images: its samples would be trained on. Raises UsageError."""
    if os.path.isdir(config.data) and folder.path.resolve().is_relative_to(Path(config.data).resolve()):
        raise UsageError(f"the run folder {folder.path} lies inside the images' folder; choose another with --out.")


def open_images(config: Config, accelerator: Accelerator) -> Pack:
    """The pack, made by one process of each machine, and the same for all; enough images for a batch."""
    first = accelerator.is_local_main_process
    packed = together(accelerator, (lambda: open_pack(config)) if first else lambda: None)
    pack = packed or open_pack(config)
    check_agreement(accelerator, config, pack.content)
    check_batch(config, accelerator.num_processes, len(pack.images))
    return pack


def total_iterations(config: Config, images: int) -> int:
    """The run's length in iterations, rounded up."""
    if config.iterations is not None:
        return config.iterations
    shown = config.epochs * images if config.epochs is not None else (config.kimg or 0) * 1000
    return math.ceil(round(shown / config.batch_size, 6))  # 1.1 × 100 is a little more than 110 to a computer


def adam(parameters: Iterable[nn.Parameter], options: AdamConfig, device: torch.device) -> torch.optim.Adam:
    """Adam (Kingma & Ba 2015, https://arxiv.org/abs/1412.6980) as one fused kernel."""
    fused = device.type in ("cpu", "cuda")
    return torch.optim.Adam(parameters, options.lr, (options.beta1, options.beta2), fused=fused)


class Trainer:
    """The players and everything that changes from one iteration to the next."""

    def __init__(self, config: Config, accelerator: Accelerator, folder: RunFolder, images: np.ndarray, content: str):
        self.config, self.accelerator, self.folder = config, accelerator, folder
        self.images, self.content = images, content
        self.device, self.dtype = accelerator.device, getattr(torch, config.dtype)
        self.loss = LOSSES[config.objective.loss]
        self.build_players()
        rank, processes, part = (
            accelerator.process_index,
            accelerator.num_processes,
            config.batch_size // config.accumulation,
        )
        self.batches = Batches(images, part, config.seed, rank, processes, self.device, self.dtype)
        self.total = total_iterations(config, len(images))
        self.iteration = self.resume()

    def build_players(self) -> None:
        """G, D and what updates them, and the average of G. Bare networks are self.G and self.D."""
        config, accelerator = self.config, self.accelerator
        self.G, self.D = NETWORKS[config.model.network](config)
        for name, module in (("generator", self.G), ("discriminator", self.D)):
            initialise(module, config.seed, name)
            module.to(self.device, self.dtype)
            module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # unknown to torch 2.11's types
        self.G_ema = copy.deepcopy(self.G).eval().requires_grad_(False)
        if accelerator.num_processes > 1 and config.model.sync_batchnorm:
            self.G, self.D = (synchronise(module, self.device) for module in (self.G, self.D))
        optimizer_g = adam(self.G.parameters(), config.optim_g, self.device)
        optimizer_d = adam(self.D.parameters(), config.optim_d, self.device)
        self.player_g = Player(accelerator, self.G, self.G, optimizer_g)
        self.player_d = Player(accelerator, self.D, CriticStep(self.D, self.loss), optimizer_d)

    def run(self, watchdog: Watchdog) -> None:
        """Iterate to the end, recording and saving on the way."""
        config, begin = self.config, self.iteration
        if begin >= self.total:
            if self.accelerator.is_main_process:
                say(f"This run has already finished: {begin} iterations. Train longer with --kimg or --iterations.")
            return
        recorder = Recorder(config, self.accelerator, self.folder, len(self.images), begin, self.total)
        self.announce(recorder)
        try:
            while self.iteration < self.total:
                recorder.add(self.iterate(self.iteration))
                self.iteration += 1
                watchdog.progress()
                if self.due(config.checkpoint.every):
                    self.save()
                if self.due(config.log_every):
                    recorder.log(self.iteration, self.amp())
                if self.due(config.sample_every):
                    recorder.picture(f"iteration-{self.iteration:08d}", self.sample(), self.iteration)
            self.accelerator.wait_for_everyone()
        finally:
            watchdog.stop()
            recorder.close()
        self.conclude()

    def iterate(self, iteration: int) -> Statistics:
        """One D update and one G update on one global batch. Nothing here reads a value from the device."""
        z = self.draw_latents("latents", iteration)
        # G's one forward serves both updates. In parts it is made anew: kept for all of them, it would fill the memory
        fake = self.player_g.step(z[0]) if len(z) == 1 else None
        statistics = {**self.update_d(iteration, z, fake), **self.update_g(iteration, z, fake)}
        update_ema(self.G_ema, self.G, self.config.ema.decay, iteration)
        return statistics

    def update_d(self, iteration: int, z: list[Tensor], fake: Images | None) -> Statistics:
        parts: list[Statistics] = []
        for part in range(len(z)):
            real = self.batches.at(iteration * self.config.batch_size + part * self.batches.batch_size)
            real = self.augmented(real, "real", iteration, part)
            images = self.augmented(fake or self.draw_images(self.G, z[part]), "fake for d", iteration, part)
            with self.player_d.part(part, len(z)):
                loss, statistics = self.player_d.step(real, images)
                self.player_d.backward(loss / len(z))
            parts.append(statistics)
        self.player_d.update()
        return mean_of(parts)

    def update_g(self, iteration: int, z: list[Tensor], fake: Images | None) -> Statistics:
        parts: list[Statistics] = []
        with frozen(self.D):
            for part in range(len(z)):
                with self.player_g.part(part, len(z)):
                    images = self.augmented(fake or self.player_g.step(z[part]), "fake for g", iteration, part)
                    with self.accelerator.autocast():
                        loss = generator_loss(self.D, images, self.loss)
                    self.player_g.backward(loss / len(z))
                parts.append({"loss/g": loss.detach()})
            self.player_g.update()
        return mean_of(parts)

    def draw_latents(self, purpose: str, iteration: int) -> list[Tensor]:
        """This process' rows of a batch of latents drawn for all: (rows, z_dim) for each part of the batch."""
        z = latents(self.config.seed, purpose, iteration, self.config.batch_size, self.config.model.z_dim)
        return [self.own_rows(z, part) for part in range(self.config.accumulation)]

    def augmented(self, images: Images, which: str, iteration: int, part: int) -> Images:
        """Images as D sees them; every sample has draws of its own, made for the whole batch."""
        options = self.config.augment
        if not any(getattr(options, name) for name in AUGMENTS) or (which != "real" and not options.fakes):
            return images
        u = uniform(self.config.seed, f"augment {which}", iteration, self.config.batch_size, len(AUGMENTS), 4)
        return augment(images, self.own_rows(u, part), options)

    def own_rows(self, draws: Tensor, part: int) -> Tensor:
        """From draws for the global batch, this process' share of one part of it, on its device."""
        mine = draws.split(self.batches.batch_size)[part][self.batches.rows]
        return mine.to(self.dtype).to(self.device, non_blocking=True)

    @torch.no_grad()
    def draw_images(self, G: nn.Module, z: Tensor) -> Images:
        """Images in [−1, 1] from latents (N, z_dim), without gradients."""
        return G(z.to(self.device, self.dtype))

    def due(self, every: int) -> bool:
        return self.iteration % every == 0 or self.iteration == self.total

    def sample(self) -> Tensor:
        """(64, C, H, W) in [−1, 1] from the averaged G and the run's fixed latents."""
        return self.draw_images(self.G_ema, latents(self.config.seed, "samples", 0, SAMPLES, self.config.model.z_dim))[
            0
        ]

    def save(self) -> None:
        """A checkpoint of everything that cannot be computed from (config, seed)."""
        if not self.accelerator.is_main_process:
            return
        tensors = {
            "generator": self.G.state_dict(),
            "generator_ema": self.G_ema.state_dict(),
            "discriminator": self.D.state_dict(),
            "optimizer_g": checkpoint.optimizer_tensors(self.player_g.optimizer, self.G),
            "optimizer_d": checkpoint.optimizer_tensors(self.player_d.optimizer, self.D),
        }
        state = {"trajectory": self.identity(), "amp_g": self.player_g.state(), "amp_d": self.player_d.state()}
        checkpoint.save(self.folder.checkpoints, self.iteration, tensors, state, self.config.checkpoint.keep)

    def resume(self) -> int:
        """Load what `--resume` asks for; the number of iterations already done. The main process reads the disk."""
        found = from_main(self.accelerator, self.find_checkpoint, checkpoint.to_message, checkpoint.from_message)
        if found is None:
            return 0
        for name, module in (("generator", self.G), ("generator_ema", self.G_ema), ("discriminator", self.D)):
            module.load_state_dict(found.tensors[name])
        for letter, player in (("g", self.player_g), ("d", self.player_d)):
            checkpoint.load_optimizer(player.optimizer, player.module, found.tensors[f"optimizer_{letter}"])
            player.load_state(found.state[f"amp_{letter}"])
        return int(found.state["iteration"])

    def find_checkpoint(self) -> Checkpoint | None:
        """The checkpoint to go on from, with what would be in its way set aside."""
        wish, mine = self.config.resume, self.folder.checkpoints
        if wish == "auto":
            found = checkpoint.load_newest(mine)
        else:
            found = None if wish == "never" else open_checkpoint(Path(wish))
        if found is not None:
            self.check_same_run(found)
        if wish == "auto" and found is not None:
            checkpoint.set_damaged_aside(mine, found.path)
        else:
            self.folder.set_aside()
            self.folder.create()
        if found is not None:
            say(f"Going on from {found.path}.")
        return found

    def identity(self) -> dict[str, Any]:
        """What decides the path of this run; a checkpoint carries it, and only fits a run with the same."""
        model = self.config.model
        local = not model.sync_batchnorm and "batch" in (model.norm_g, model.norm_d)
        return {
            **trajectory(self.config),
            "mixed precision": precision(self.accelerator),
            "images": self.content,
            "processes": self.accelerator.num_processes if local else "any",
        }

    def check_same_run(self, found: Checkpoint) -> None:
        """Raises UsageError naming what differs, or when there is nothing left to do from an explicit checkpoint."""
        now, then = self.identity(), found.state["trajectory"]
        changed = [name for name in now if now[name] != then.get(name)]
        words = {"images": "other images", "mixed precision": f"mixed precision {then.get('mixed precision')}",
                 "processes": f"{then.get('processes')} process(es) that each have their own BatchNorm"}  # fmt: skip
        if changed:
            what = ", ".join(words.get(name, f"--{name} {then.get(name)}") for name in changed)
            raise UsageError(
                f"{found.path} was made with {what}. Use the same settings again, or another run folder with --out."
            )
        if self.config.resume != "auto" and found.state["iteration"] >= self.total:
            raise UsageError(f"{found.path} is already as long as this run, {self.total} iterations; ask for more.")

    def announce(self, recorder: Recorder) -> None:
        """Start the record: what runs where, and a look at the real images."""
        if not self.accelerator.is_main_process:
            return
        self.folder.rewind_log(self.iteration)
        facts = {"processes": self.accelerator.num_processes, "precision": precision(self.accelerator)}
        self.folder.describe(self.config, facts)
        self.folder.write_status("running", self.iteration)
        side, machine = self.config.resolution, f"{self.accelerator.num_processes} × {self.device.type}"
        sizes = [sum(parameter.numel() for parameter in module.parameters()) for module in (self.G, self.D)]
        say(f"Run folder {self.folder.path}: {len(self.images)} images of {side}×{side} pixels,"
            f" G {sizes[0]:,} and D {sizes[1]:,} parameters, on {machine}.")  # fmt: skip
        if where := recorder.tracker.where():
            say(where)
        spread = np.linspace(0, len(self.images) - 1, min(SAMPLES, len(self.images))).astype(int)
        recorder.picture("reals", self.images[spread], self.iteration)

    def amp(self) -> dict[str, float]:
        """In fp16, the loss scale of each player and its skipped updates since the run began. Reads the device."""
        states = {"d": self.player_d.state(), "g": self.player_g.state()}
        return {
            f"amp/{key}_{letter}": state[key]
            for letter, state in states.items()
            if state
            for key in ("scale", "skipped")
        }

    def record_failure(self, reason: str, preempted: bool = False) -> None:
        """Leave in status.json why the run stopped before its end."""
        if self.accelerator.is_main_process:
            self.folder.write_status("preempted" if preempted else "failed", self.iteration, reason=reason)
            last = next((path.name for path in checkpoint.listed(self.folder.checkpoints)), "the beginning")
            say(f"Stopped at iteration {self.iteration}; the same command goes on from {last}.")

    def conclude(self) -> None:
        """Say that it is done, what to look at, and what to try next."""
        if not self.accelerator.is_main_process:
            return
        self.folder.write_status("finished", self.iteration)
        say(f"Finished {self.total} iterations. Look at {self.folder.samples}/iteration-{self.iteration:08d}.png "
                 f"(the real images are in reals.png beside it).")  # fmt: skip
        if self.config.data == "sprites":
            say("Next, your own images: accelerate launch train.py --data FOLDER_OR_ZIP")
        else:
            say(f"Next, more samples: gan sample {shlex.quote(str(self.folder.path))} --out samples.png")


def open_checkpoint(path: Path) -> Checkpoint:
    """The checkpoint in `path`, or the newest of the run in `path`. Raises RunError or UsageError."""
    if os.path.exists(path / "manifest.json"):
        return checkpoint.load(path)
    found = checkpoint.load_newest(path / "checkpoints") if os.path.isdir(path) else None
    if found is None:
        raise UsageError(
            f"--resume {path}: there is no checkpoint; give a run folder or a checkpoint's folder, auto or never."
        )
    return found
