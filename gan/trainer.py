"""The loop: config → players → iterations, with a record and checkpoints on the way."""

import copy
import shlex
from collections.abc import Callable
from signal import Signals
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from gan import checkpoint, listing
from gan.augment import AUGMENTS, augment, background_of
from gan.checkpoint import Checkpoint
from gan.config import Config, same_command, total_iterations
from gan.data.batches import Batches, is_resident, pyramid
from gan.data.pack import Pack
from gan.draws import Draws
from gan.ema import fit_statistics, update_ema
from gan.errors import RunError
from gan.evaluate import Evaluator, headlines
from gan.files import attempt
from gan.memory import is_out_of_memory
from gan.metrics import METRICS
from gan.networks import NETWORKS, Images
from gan.networks.batchnorm import synchronise
from gan.objectives import LOSSES
from gan.optimizers import OPTIMIZERS, learning_rate
from gan.player import Player, keep_if
from gan.preemption import Preempted, Preemption
from gan.processes import from_main, layout_of, on_main, precision
from gan.randomness import initialise
from gan.resume import clear_the_way, find_checkpoint, find_source, identity_of
from gan.run_folder import RunFolder
from gan.saving import Saver
from gan.steps import CriticStep, Statistics, clip_weights, frozen, generator_loss, mean_of
from gan.telemetry.console import say
from gan.telemetry.grids import evenly
from gan.telemetry.health import Judge
from gan.telemetry.performance import Stopwatch, resources
from gan.telemetry.recorder import Recorder
from gan.telemetry.samples import Samples
from gan.transfer import freeze_first_blocks, initialise_from
from gan.watchdog import Watchdog


class Trainer:
    """The players and everything that changes from one iteration to the next."""

    def __init__(self, config: Config, accelerator: Accelerator, folder: RunFolder, pack: Pack):
        self.config, self.accelerator, self.folder = config, accelerator, folder
        self.images = images = pack.images
        self.device, self.dtype = accelerator.device, getattr(torch, config.dtype)
        self.layout = layout_of(config, accelerator)
        self.loss = LOSSES[config.objective.loss]
        self.build_players()
        part, place = config.batch_size // config.accumulation, (accelerator.process_index, accelerator.num_processes)
        resident = is_resident(config.data_options.resident, self.device, images.nbytes)
        self.batches = Batches(images, part, config.seed, *place, self.device, self.dtype, resident,
                               config.speed.prefetch)  # fmt: skip
        self.draws = Draws(config, self.batches.rows, self.device, self.dtype)
        self.background = background_of(config, self.device, self.dtype)
        self.total = total_iterations(config, len(images))
        self.identity = identity_of(config, accelerator, pack.content)
        self.saver, self.ending = Saver(folder, config.checkpoint, same_command(config)), False
        self.evaluator = None if config.eval.every is None else Evaluator(
            config, pack, accelerator, [config.eval.metric], config.eval.count)  # fmt: skip
        self.measured: dict[str, float] = {}
        """In the evaluation of this iteration."""
        self.score: dict[str, Any] = {}
        """What the checkpoint of this iteration is to say of its quality."""
        self.recorder: Recorder | None = None
        self.stopwatch = Stopwatch(self.device)
        self.samples = Samples(config, self.G, self.G_ema, images, self.device)
        self.iteration = self.resume()
        self.fitted = -1
        """The iteration whose average has statistics of its own."""

    def build_players(self) -> None:
        """G, D and what updates them, and the average of G. Bare networks are self.G and self.D."""
        config, accelerator = self.config, self.accelerator
        self.G, self.D = NETWORKS[config.model.network](config)
        for name, module in (("generator", self.G), ("discriminator", self.D)):
            initialise(module, config.seed, name)
            module.to(self.device, self.dtype)
            module.to(memory_format=self.layout)  # type: ignore[call-overload]  # unknown to torch 2.11's types
        freeze_first_blocks(self.D, config.transfer.freeze_d)
        self.G_ema = copy.deepcopy(self.G).eval().requires_grad_(False)
        if accelerator.num_processes > 1 and config.model.sync_batchnorm:
            self.G, self.D = synchronise(self.G, self.device), synchronise(self.D, self.device)
        fused = config.speed.fused and self.device.type in ("cpu", "cuda")
        optimizers = [OPTIMIZERS[options.method](module.parameters(), options, fused)
                      for module, options in ((self.G, config.optim_g), (self.D, config.optim_d))]  # fmt: skip
        scale = config.batch_size if config.objective.reduction == "sum" else 1
        self.player_g = Player(accelerator, self.G, self.G, optimizers[0], scale)
        self.critic = CriticStep(self.D, config.objective)
        self.player_d = Player(accelerator, self.D, self.critic, optimizers[1], scale)
        # Where both updates have the same latents, G's one forward serves both. Not in parts: kept with what their
        # gradients need, the images of all parts would fill the memory
        objective = config.objective
        self.share_fakes = objective.shared_latents and objective.n_critic == config.accumulation == 1
        if config.speed.compile:
            self.G.compile()
            self.D.compile()

    def run(self, watchdog: Watchdog) -> None:
        """Iterate to the end, recording and saving on the way."""
        config, begin = self.config, self.iteration
        if begin >= self.total:
            if self.accelerator.is_main_process:
                say(f"This run has already finished: {begin} iterations. Train longer with --kimg or --iterations.")
                self.folder.write_status("finished", begin, total=self.total)  # it may have been killed before it could
            return
        self.describe()
        self.recorder = recorder = Recorder(config, self.accelerator, self.folder, len(self.images), begin, self.total,
                                            Judge(self.critic.undecided, config.objective.n_critic))  # fmt: skip
        self.announce(recorder)
        watchdog.progress()
        with Preemption(self.accelerator) as preemption:
            while self.iteration < self.total and not preemption.due():
                recorder.add(self.iterate(self.iteration))
                self.iteration += 1
                watchdog.progress()
                self.record(recorder, watchdog)
            if preemption.signal:
                watchdog.stop()  # the store it looks into may go with the launcher
                self.yield_to(preemption.signal)
            if self.accelerator.num_processes > 1:
                self.accelerator.wait_for_everyone()
            watchdog.stop()  # the others may leave now; what follows is the main process' alone
            if preemption.signal:
                stopped = (f"Stopped by {Signals(preemption.signal).name}; saved at iteration {self.iteration} of "
                           f"{self.total}. {same_command(config).capitalize()} goes on from there.")  # fmt: skip
                recorder.close("preempted", self.iteration, stopped)
                raise Preempted(stopped, agreed=True)
            self.conclude(recorder)

    def yield_to(self, number: int) -> None:
        """Save, and leave word that the run was told to stop by this signal."""
        self.ending = True
        self.save()
        if self.accelerator.is_main_process:
            self.folder.write_status("preempted", self.iteration, total=self.total, reason=Signals(number).name)

    def record(self, recorder: Recorder, watchdog: Watchdog) -> None:
        """Measure, log, draw and save, each when it is due. Saving comes last: a run that goes on from there lacks
        nothing."""
        config, self.ending = self.config, self.iteration == self.total
        log, measure, draw, save = (
            every is not None and (self.iteration % every == 0 or self.ending)
            for every in (config.log_every, config.eval.every, config.sample_every, config.checkpoint.every)
        )
        for due, act in (
            (log or measure, self.check_progress),
            (measure, lambda: self.evaluate(watchdog)),
            (log or measure, lambda: recorder.log(self.iteration, self.figures() | self.measured)),
            (draw, lambda: self.picture(recorder)),
            (save or measure, self.save),
        ):
            if due:
                act()
                watchdog.progress()
        self.measured, self.score = {}, {}

    def iterate(self, iteration: int) -> Statistics:
        """The D updates and the G update of one iteration. Nothing here reads a value from the device."""
        objective, first = self.config.objective, iteration * self.config.objective.n_critic
        if (iteration + 1) % self.config.log_every == 0 and self.accelerator.is_main_process:
            self.stopwatch.start()
        self.player_d.set_learning_rate(learning_rate(self.config.optim_d, iteration))
        self.player_g.set_learning_rate(learning_rate(self.config.optim_g, iteration))
        buffers = [buffer for module in (self.G, self.D) for buffer in module.buffers()]
        kept, bad = [buffer.clone() for buffer in buffers], torch.zeros((), dtype=torch.bool, device=self.device)
        for update in range(first, first + objective.n_critic):
            z = self.draws.latents("latents", update)
            self.stopwatch.lap("data")
            fake = self.player_g.step(z[0]) if self.share_fakes else None
            statistics = self.update_d(update, z, fake)
            bad = bad | self.player_d.bad
        if not objective.shared_latents:
            z = self.draws.latents("latents for g", iteration)
        statistics |= self.update_g(update, z, fake)
        keep_if(bad | self.player_g.bad, buffers, kept)  # BatchNorm's statistics may hold what spoilt the gradients
        update_ema(self.G_ema, self.G, self.config.ema.decay, iteration)
        self.stopwatch.lap("step")
        norms = {"grad_norm/d": self.player_d.gradient_norm, "grad_norm/g": self.player_g.gradient_norm}
        return statistics | norms

    def update_d(self, update: int, z: list[Tensor], fake: Images | None) -> Statistics:
        """`update` counts the updates of D from the run's beginning; each has a batch of real images of its own."""
        parts: list[Statistics] = []
        for part in range(len(z)):
            with torch.no_grad():
                images = self.as_seen(fake or self.G(z[part]), "fake for d", update, part)
            self.stopwatch.lap("g")
            u, real = self.draws.uniform("critic", update, part, self.critic.uniforms), self.real_images(update, part)
            self.stopwatch.lap("data")
            with self.player_d.part(part, len(z)):
                loss, statistics = self.player_d.step(real, images, u)
                self.player_d.backward(loss / len(z))
            self.stopwatch.lap("d")
            parts.append(statistics)
        self.player_d.update()
        if self.config.objective.clip:
            clip_weights(self.D, self.config.objective.clip)
        self.stopwatch.lap("step")
        return mean_of(parts)

    def update_g(self, update: int, z: list[Tensor], fake: Images | None) -> Statistics:
        """`update` is D's last, whose real images a relative loss looks at again."""
        parts: list[Statistics] = []
        with frozen(self.D):
            for part in range(len(z)):
                real = self.real_images(update, part) if self.loss.relative else None
                u = self.draws.uniform("critic for g", update, part, self.D.uniforms)
                self.stopwatch.lap("data")
                with self.player_g.part(part, len(z)):
                    images = self.as_seen(fake or self.player_g.step(z[part]), "fake for g", update, part)
                    with self.accelerator.autocast():
                        loss = generator_loss(self.D, images, real, u, self.loss)
                    self.player_g.backward(loss / len(z))
                self.stopwatch.lap("g")
                parts.append({"loss/g": loss.detach()})
            self.player_g.update()
        return mean_of(parts)

    def real_images(self, update: int, part: int) -> Images:
        """This process' share of a part of the batch, as D sees it: at every scale, augmented as generated ones are."""
        finest = self.batches.at(update * self.config.batch_size + part * self.batches.batch_size)
        finest = finest.contiguous(memory_format=self.layout)
        return self.as_seen(pyramid(finest, self.G.scales), "real", update, part)

    def as_seen(self, images: Images, which: str, update: int, part: int) -> Images:
        """Images augmented with draws of every sample's own; generated ones only where the recipe says so."""
        options = self.config.augment
        if not any(getattr(options, name) for name in AUGMENTS) or (which != "real" and not options.fakes):
            return images
        u = self.draws.uniform(f"augment {which}", update, part, len(AUGMENTS), 4)
        return augment(images, u, options, self.background)

    def picture(self, recorder: Recorder) -> None:
        """Sample grids; the main process' alone."""
        if self.accelerator.is_main_process:
            self.fit_average()
            self.samples.record(recorder, self.iteration)
            if self.ending or self.iteration % (10 * self.config.sample_every) == 0:
                self.samples.walk(recorder, self.iteration)
            recorder.draw()

    def evaluate(self, watchdog: Watchdog) -> None:
        """Measure the averaged G by `--eval.metric`. A collective."""
        assert self.evaluator is not None
        name = self.config.eval.metric
        self.fit_average()
        values = headlines(self.evaluator(self.G_ema, watchdog.progress).get(name, {}))
        self.measured = {f"eval/{key}": value for key, value in values.items()}
        if values:  # on the main process
            value, better = values[METRICS[name].chief or name], METRICS[name].better
            self.score = {"score": {"metric": name, "value": value, "better": better, "count": self.config.eval.count,
                                    "images": self.identity["images"]}}  # fmt: skip

    def fit_average(self) -> None:
        """Let the averaged G be drawn from, at this iteration."""
        if self.fitted != self.iteration:
            fit_statistics(self.G_ema, self.config.seed, self.config.model.z_dim)
            self.fitted = self.iteration

    def save(self) -> None:
        """A checkpoint, by the main process. A collective; raises RunError."""
        self.check_progress()
        on_main(self.accelerator, self.save_here)

    def save_here(self) -> None:
        """The main process' part. Raises RunError."""
        if self.ending:
            self.saver.settle(forgiving=True)
            if checkpoint.place(self.folder.checkpoints, self.iteration).exists():
                return  # saved a moment ago, or gone on from
        skipping = any(int(player.in_a_row) for player in (self.player_d, self.player_g))
        if skipping and not self.ending:  # it may never recover, and must not take a good one's place
            say(f"Not saved at iteration {self.iteration}: the last update was skipped, its gradients not finite.")
            return
        keep = None if skipping else self.config.checkpoint.keep
        self.saver.save(self.iteration, *self.contents(), keep, self.ending, self.describe)

    def contents(self) -> tuple[checkpoint.TensorGroups, dict[str, Any]]:
        """Everything that cannot be computed from (config, seed). Raises RunError when some of it is not finite, so
        that no such state ever takes a good one's place."""
        self.fit_average()
        tensors = {
            "generator": self.G.state_dict(),
            "generator_ema": self.G_ema.state_dict(),
            "discriminator": self.D.state_dict(),
            "optimizer_g": checkpoint.optimizer_tensors(self.player_g.optimizer, self.G),
            "optimizer_d": checkpoint.optimizer_tensors(self.player_d.optimizer, self.D),
        }
        for group, values in tensors.items():
            if not all(bool(value.isfinite().all()) for value in values.values()):
                letter = "d" if group in ("discriminator", "optimizer_d") else "g"
                raise RunError(f"{group} holds values that are not finite at iteration {self.iteration}, and was not "
                               f"saved. {self.remedy(letter)}")  # fmt: skip
        state = {"trajectory": self.identity, "amp_g": self.player_g.state(), "amp_d": self.player_d.state()}
        return tensors, state | self.score

    def check_progress(self) -> None:
        """Stop when a player has skipped too many updates in a row. Every process finds the same; raises RunError."""
        for letter, player in (("d", self.player_d), ("g", self.player_g)):
            row = int(player.in_a_row)
            if row < self.config.max_skipped:
                continue
            since = self.iteration - row // (self.config.objective.n_critic if letter == "d" else 1)
            if self.recorder and self.recorder.last_iteration < self.iteration:
                self.recorder.log(self.iteration, self.figures(), "diverged")
            raise RunError(
                f"{letter.upper()}'s gradients have not been finite since iteration {since}: its last {row} updates "
                f"were skipped. {self.remedy(letter)}",
                agreed=True,
            )

    def remedy(self, letter: str) -> str:
        """What may help a player that has diverged."""
        options = self.config.optim_d if letter == "d" else self.config.optim_g
        mixed = precision(self.accelerator)
        less = " or --mixed_precision no" if mixed != "no" else ""
        return (
            f"Precision {self.config.dtype if mixed == 'no' else mixed}, learning rate {options.lr}; begin anew, or "
            f"go on with --resume-changed True, with a lower --optim-{letter}.lr{less}."
        )

    def resume(self) -> int:
        """Load what `--resume` asks for, or begin with what `--init-from` does; the number of iterations already done.
        The main process reads the disk for all."""
        found = self.from_disk(lambda: find_checkpoint(self.config, self.folder, self.identity, self.total))
        source = self.from_disk(lambda: find_source(self.config, found))
        if source is not None:
            table = initialise_from(source, self.config, self.G, self.D)
            self.G_ema.load_state_dict(self.G.state_dict())
            if self.accelerator.is_main_process:
                say(table)
        if found is not None:
            self.go_on_from(found)
        on_main(self.accelerator, lambda: clear_the_way(self.config, self.folder, found))
        return int(found.state["iteration"]) if found else 0

    def go_on_from(self, found: Checkpoint) -> None:
        """Networks, optimizers and scalers as they were. Raises RunError where they do not fit."""
        try:
            for name, module in (("generator", self.G), ("generator_ema", self.G_ema), ("discriminator", self.D)):
                module.load_state_dict(found.tensors[name])
            for letter, player in (("g", self.player_g), ("d", self.player_d)):
                checkpoint.load_optimizer(player.optimizer, player.module, found.tensors[f"optimizer_{letter}"])
                player.load_state(found.state[f"amp_{letter}"])
                if self.config.resume_changed:
                    player.in_a_row.zero_()  # what changed may have cured it
        except (RuntimeError, KeyError, ValueError) as error:
            if is_out_of_memory(error):
                raise
            raise RunError(f"{found.path} does not fit this version of the trainer ({error}).") from None

    def from_disk(self, find: Callable[[], Checkpoint | None]) -> Checkpoint | None:
        """What the main process finds, on all of them. A collective."""
        return from_main(self.accelerator, find, checkpoint.to_message, checkpoint.from_message)

    def announce(self, recorder: Recorder) -> None:
        """Start the record: what runs where, and a look at the real images."""
        if not self.accelerator.is_main_process:
            return
        attempt(self.folder.sweep, "the run folder")
        self.folder.rewind_log(self.iteration)
        self.folder.write_status("running", self.iteration, total=self.total)
        side, machine = self.config.resolution, f"{self.accelerator.num_processes} × {self.device.type}"
        sizes = [sum(parameter.numel() for parameter in module.parameters()) for module in (self.G, self.D)]
        say(f"Run folder {self.folder.path}: {len(self.images)} images of {side}×{side} pixels,"
            f" G {sizes[0]:,} and D {sizes[1]:,} parameters, on {machine}.")  # fmt: skip
        if where := recorder.tracker.where():
            say(where)
        recorder.picture("reals", self.images[evenly(len(self.images), self.config.samples)], self.iteration)

    def describe(self) -> None:
        """Write down what the run is."""
        if not self.accelerator.is_main_process:
            return
        facts = {"processes": self.accelerator.num_processes, "precision": precision(self.accelerator),
                 "device": self.device.type, "threads": torch.get_num_threads(),
                 "images": len(self.images)}  # fmt: skip
        self.folder.describe(self.config, facts)

    def amp(self) -> dict[str, float]:
        """Each player's skipped updates since the run began and, in fp16, its loss scale. Reads the device."""
        states = {"d": self.player_d.state(), "g": self.player_g.state()}
        return {
            f"amp/{key}_{letter}": state[key]
            for letter, state in states.items()
            for key in ("scale", "skipped")
            if key in state
        }

    def figures(self) -> dict[str, float]:
        """What is looked at at the log interval alone, by the main process, which logs it. Reads the device."""
        if not self.accelerator.is_main_process:
            return {}
        norms = {"weights/d": float(self.player_d.weight_norm()), "weights/g": float(self.player_g.weight_norm())}
        return {**self.amp(), **norms, **self.samples.health(), **self.stopwatch.read(), **resources(self.device)}

    def record_failure(self, reason: str) -> None:
        """Leave in status.json why the run stopped before its end."""
        if self.accelerator.is_main_process:
            self.folder.write_status("failed", self.iteration, total=self.total, reason=reason)
            self.saver.wait(3)
            last = next((path.name for path in listing.listed(self.folder.checkpoints)), "the beginning")
            say(f"Stopped at iteration {self.iteration}; {same_command(self.config)} goes on from {last}.")

    def conclude(self, recorder: Recorder) -> None:
        """Say that it is done, what to look at, and what to try next."""
        if not self.accelerator.is_main_process:
            return
        self.folder.write_status("finished", self.iteration, total=self.total)
        best, facts = listing.best(self.folder.checkpoints)
        said = f"The best by {facts['metric']}, {facts['value']:.4g}: {best}" if best else ""
        recorder.tracker.keep_generator(self.folder.path, checkpoint.place(self.folder.checkpoints, self.iteration))
        recorder.close("finished", self.iteration, f"{self.total} iterations. {said}")
        say(f"Finished {self.total} iterations. Look at {self.folder.samples}/iteration-{self.iteration:08d}.png "
                 f"(the real images are in reals.png beside it).")  # fmt: skip
        if said:
            say(said)
        if where := recorder.tracker.where():
            say(where)
        if self.config.data == "sprites":
            say("Next, your own images: accelerate launch train.py --data FOLDER_OR_ZIP")
        else:
            say(f"Next, more samples: gan sample {shlex.quote(str(self.folder.path))} --out samples.png")
