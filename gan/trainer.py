"""The loop: config → players → iterations, with a record and checkpoints on the way."""

import copy
import math
import os
import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from gan import checkpoint
from gan.checkpoint import Checkpoint
from gan.config import AdamConfig, Config, trajectory
from gan.data.batches import Batches
from gan.data.pack import available_cores, open_pack
from gan.ema import update_ema
from gan.errors import UsageError
from gan.networks import NETWORKS
from gan.objectives import LOSSES
from gan.randomness import initialise, latents
from gan.run_folder import RunFolder
from gan.steps import CriticStep, Statistics, frozen, generator_loss
from gan.telemetry.console import say
from gan.telemetry.recorder import Recorder

SAMPLES = 64


def train(config: Config) -> None:
    """A whole run: new, or going on from its newest checkpoint."""
    accelerator = start_accelerator(config)
    folder = RunFolder(Path(str(config.out)))
    check_places(config, folder)
    if accelerator.is_main_process:
        folder.create()
    try:
        pack = open_pack(config)
        check_batch(config, accelerator, len(pack.images))
    except BaseException:
        folder.remove_if_empty()
        raise
    lock = folder.lock() if accelerator.is_main_process else None
    trainer = Trainer(config, accelerator, folder, pack.images, pack.content)
    try:
        trainer.run()
    except BaseException as error:
        if accelerator.is_main_process:
            state = "preempted" if isinstance(error, KeyboardInterrupt) else "failed"
            folder.write_status(state, trainer.iteration, reason=str(error) or type(error).__name__)
            last = next((path.name for path in checkpoint.listed(folder.checkpoints)), "the beginning")
            say(f"Stopped at iteration {trainer.iteration}; the same command goes on from {last}.")
        raise
    finally:
        if lock is not None:
            lock.release()


def start_accelerator(config: Config) -> Accelerator:
    """Accelerate with this machine's devices; precision and processes are as `accelerate launch` said."""
    accelerator = Accelerator(cpu=not torch.accelerator.is_available(), log_with="wandb")
    if config.dtype == "float64" and accelerator.mixed_precision != "no":
        raise UsageError(f"--dtype float64 and mixed precision {accelerator.mixed_precision} exclude each other.")
    if accelerator.device.type == "cpu":
        if accelerator.mixed_precision == "fp16" and accelerator.is_main_process:
            say("fp16 needs a GPU; on this CPU the run is in float32.")
        # accelerate launch sets 1 when nobody asks for another number; that would leave the other cores idle
        if os.environ.get("OMP_NUM_THREADS", "1") == "1":
            torch.set_num_threads(max(1, available_cores() // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))))
    torch.backends.cudnn.deterministic = True  # the same command gives the same weights
    torch.backends.cudnn.benchmark = False
    return accelerator


def check_places(config: Config, folder: RunFolder) -> None:
    """Refuse a run folder among the images: its samples would be trained on. Raises UsageError."""
    if os.path.isdir(config.data) and folder.path.resolve().is_relative_to(Path(config.data).resolve()):
        raise UsageError(f"the run folder {folder.path} lies inside the images' folder; choose another with --out.")


def check_batch(config: Config, accelerator: Accelerator, images: int) -> None:
    """Refuse a batch that the images cannot fill or the processes cannot share. Raises UsageError."""
    batch, processes = config.batch_size, accelerator.num_processes
    if images < batch:
        raise UsageError(
            f"{config.data} has {images} images, fewer than one batch of {batch}; add images or lower --batch-size."
        )
    if batch % processes:
        nearest = batch // processes * processes or processes
        raise UsageError(f"--batch-size {batch} cannot be shared by {processes} processes; the nearest is {nearest}.")


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
        rank, processes = accelerator.process_index, accelerator.num_processes
        self.batches = Batches(images, config.batch_size, config.seed, rank, processes, self.device, self.dtype)
        self.total = total_iterations(config, len(images))
        self.iteration = self.resume()

    def build_players(self) -> None:
        """G, D and their optimizers, and the average of G. Unwrapped modules are self.G and self.D."""
        config = self.config
        self.G, self.D = NETWORKS[config.model.network](config)
        for name, module in (("generator", self.G), ("discriminator", self.D)):
            initialise(module, config.seed, name)
            module.to(self.device, self.dtype)
            module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # unknown to torch 2.11's types
        self.G_ema = copy.deepcopy(self.G).eval().requires_grad_(False)
        self.optimizer_g = adam(self.G.parameters(), config.optim_g, self.device)
        self.optimizer_d = adam(self.D.parameters(), config.optim_d, self.device)
        prepare = self.accelerator.prepare
        self.generate, self.step_g = prepare(self.G, self.optimizer_g)
        self.critic_step, self.step_d = prepare(CriticStep(self.D, self.loss), self.optimizer_d)

    def run(self) -> None:
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
                if self.due(config.checkpoint.every):
                    self.save()
                if self.due(config.log_every):
                    recorder.log(self.iteration)
                if self.due(config.sample_every):
                    recorder.picture(f"iteration-{self.iteration:08d}", self.sample(), self.iteration)
        finally:
            recorder.close()
        self.conclude(recorder)

    def iterate(self, iteration: int) -> Statistics:
        """One D update and one G update on one global batch. Nothing here reads a value from the device."""
        real = self.batches.at(iteration * self.config.batch_size)
        fake = self.generate(self.draw_latents("latents", iteration, self.config.batch_size))
        loss_d, statistics = self.critic_step(real, [image.detach() for image in fake])
        self.update(self.step_d, loss_d)
        with frozen(self.D):
            with self.accelerator.autocast():
                loss_g = generator_loss(self.D, fake, self.loss)
            self.update(self.step_g, loss_g)
        update_ema(self.G_ema, self.G, self.config.ema.decay, iteration)
        return {**statistics, "loss/g": loss_g.detach()}

    def update(self, optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
        self.accelerator.backward(loss)
        optimizer.step()
        optimizer.zero_grad()

    def draw_latents(self, purpose: str, index: int, count: int) -> Tensor:
        """This process' rows of `count` latents drawn for all processes, (rows, z_dim)."""
        z = latents(self.config.seed, purpose, index, count, self.config.model.z_dim)
        return z[self.batches.rows].to(self.device, self.dtype, non_blocking=True)

    def due(self, every: int) -> bool:
        return self.iteration % every == 0 or self.iteration == self.total

    @torch.no_grad()
    def sample(self) -> Tensor:
        """(64, C, H, W) in [−1, 1] from the averaged G and the run's fixed latents."""
        z = latents(self.config.seed, "samples", 0, SAMPLES, self.config.model.z_dim)
        return self.G_ema(z.to(self.device, self.dtype))[0]

    def save(self) -> None:
        """A checkpoint of everything that cannot be computed from (config, seed)."""
        if not self.accelerator.is_main_process:
            return
        tensors = {
            "generator": self.G.state_dict(),
            "generator_ema": self.G_ema.state_dict(),
            "discriminator": self.D.state_dict(),
            "optimizer_g": checkpoint.optimizer_tensors(self.optimizer_g, self.G),
            "optimizer_d": checkpoint.optimizer_tensors(self.optimizer_d, self.D),
        }
        scaler = self.accelerator.scaler
        state = {"trajectory": self.identity(), "scaler": scaler.state_dict() if scaler is not None else None}
        checkpoint.save(self.folder.checkpoints, self.iteration, tensors, state, self.config.checkpoint.keep)

    def resume(self) -> int:
        """Load what `--resume` asks for; the number of iterations already done."""
        found = self.find_checkpoint()
        if found is None:
            return 0
        for name, module in (("generator", self.G), ("generator_ema", self.G_ema), ("discriminator", self.D)):
            module.load_state_dict(found.tensors[name])
        checkpoint.load_optimizer(self.optimizer_g, self.G, found.tensors["optimizer_g"])
        checkpoint.load_optimizer(self.optimizer_d, self.D, found.tensors["optimizer_d"])
        if self.accelerator.scaler is not None and found.state["scaler"]:
            self.accelerator.scaler.load_state_dict(found.state["scaler"])
        if self.accelerator.is_main_process:
            say(f"Going on from {found.path}.")
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
        if self.accelerator.is_main_process:
            if wish == "auto" and found is not None:
                checkpoint.set_damaged_aside(mine, found.path)
            else:
                self.folder.set_aside()
                self.folder.create()
        return found

    def identity(self) -> dict[str, Any]:
        """What decides the path of this run; a checkpoint carries it, and only fits a run with the same."""
        precision = self.accelerator.mixed_precision
        return {**trajectory(self.config), "mixed precision": precision, "images": self.content}

    def check_same_run(self, found: Checkpoint) -> None:
        """Raises UsageError naming what differs, or when there is nothing left to do from an explicit checkpoint."""
        now, then = self.identity(), found.state["trajectory"]
        changed = [name for name in now if now[name] != then.get(name)]
        words = {"images": "other images", "mixed precision": f"mixed precision {then.get('mixed precision')}"}
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
        if self.accelerator.num_processes > 1:
            say("Several processes: BatchNorm is not synchronised between them yet, so the result differs from one's.")
        facts = {"processes": self.accelerator.num_processes, "precision": self.accelerator.mixed_precision}
        self.folder.describe(self.config, facts)
        self.folder.write_status("running", self.iteration)
        side = self.config.resolution
        sizes = [sum(parameter.numel() for parameter in module.parameters()) for module in (self.G, self.D)]
        say(f"Run folder {self.folder.path}: {len(self.images)} images of {side}×{side} pixels,"
            f" G {sizes[0]:,} and D {sizes[1]:,} parameters, on {self.device}.")  # fmt: skip
        if where := recorder.tracker.where():
            say(where)
        spread = np.linspace(0, len(self.images) - 1, min(SAMPLES, len(self.images))).astype(int)
        recorder.picture("reals", self.images[spread], self.iteration)

    def conclude(self, recorder: Recorder) -> None:
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
