"""A whole run, from its settings to its end."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from accelerate import Accelerator

from gan.config import Config, same_command
from gan.data.pack import Pack, open_pack
from gan.data.sources import path_of
from gan.errors import ProcessError, UsageError, UserFault, speaks, suggestion, tell
from gan.memory import advice, is_out_of_memory
from gan.metrics import METRICS
from gan.preemption import Preempted
from gan.processes import check_agreement, check_batch, on_main, one_first, precision, start_processes, together
from gan.run_folder import RunFolder
from gan.trainer import Trainer
from gan.watchdog import Watchdog


def train(config: Config) -> None:
    """A whole run: new, or going on from its newest checkpoint. Raises Preempted where it was told to stop."""
    accelerator, preempted = start_processes(config), None
    try:
        train_on(accelerator, config)
    except Preempted as stop:
        preempted = stop.with_traceback(None)  # whose frames would keep the networks
    # No network that DDP has wrapped is left, so the group goes for good, and waits for its threads. One of gloo's that
    # lets go of the last collective's tensor when Python is on its way out aborts the process
    accelerator.state.destroy_process_group()
    if preempted:
        raise preempted


def train_on(accelerator: Accelerator, config: Config) -> None:
    """The run, in the process group that there is."""
    folder = RunFolder(Path(str(config.out)))
    with Watchdog(accelerator, config.distributed.timeout, farewell(config)) as watchdog:
        together(accelerator, lambda: check_places(config, folder))
        trainer = prepare(config, accelerator, folder, watchdog)
        watchdog.report = trainer.record_failure
        try:
            with plain_faults(config, accelerator, watchdog):
                trainer.run(watchdog)
        except Preempted:
            raise
        except BaseException as error:
            reason = str(error) or type(error).__name__
            if isinstance(error, UserFault) and speaks(error):
                tell(error)  # at once: what follows may take longer than a launcher waits
            trainer.record_failure(reason)
            if trainer.recorder:
                trainer.recorder.close("failed", trainer.iteration, reason)
            raise
        finally:
            trainer.saver.close()
            folder.unlock()


def prepare(config: Config, accelerator: Accelerator, folder: RunFolder, watchdog: Watchdog) -> Trainer:
    """Folder, images and players. What is refused here leaves neither a lock nor empty folders behind."""
    on_main(accelerator, folder.create)
    try:
        pack = open_images(config, accelerator)
        on_main(accelerator, folder.lock)
        with plain_faults(config, accelerator, watchdog):
            return Trainer(config, accelerator, folder, pack)
    except BaseException:
        folder.remove_if_empty()
        folder.unlock()
        raise


@contextmanager
def plain_faults(config: Config, accelerator: Accelerator, watchdog: Watchdog) -> Iterator[None]:
    """Faults of the machines, inside, become a sentence. Raises ProcessError."""
    try:
        yield
    except RuntimeError as error:
        if is_out_of_memory(error):
            fault = advice(config, accelerator.num_processes, precision(accelerator), accelerator.device)
        elif config.speed.compile and type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
            fault = f"--speed.compile does not work here ({str(error).strip().splitlines()[0]}). Leave it out."
        elif lost := watchdog.lost():
            fault = f"{lost}. {farewell(config)}"
        else:
            raise
        raise ProcessError(f"process {accelerator.process_index}: {fault}") from error


def farewell(config: Config) -> str:
    """Said where a process that others wait for is lost."""
    return f"The run ends here; {same_command(config)} goes on from its newest checkpoint."


def check_places(config: Config, folder: RunFolder) -> None:
    """Refuse a run folder among the images, whose samples would be trained on, and an unknown metric. Raises
    UsageError."""
    if config.eval.metric not in METRICS:
        known = f"one of {', '.join(METRICS)}{suggestion(config.eval.metric, METRICS)}"
        raise UsageError(f"--eval.metric {config.eval.metric} is not {known}")
    images = path_of(config.data)
    if images and os.path.isdir(images) and folder.path.resolve().is_relative_to(images.resolve()):
        raise UsageError(f"the run folder {folder.path} lies inside the images' folder; choose another with --out.")


def open_images(config: Config, accelerator: Accelerator) -> Pack:
    """The pack, made by one process of each machine, and the same for all; enough images for a batch."""
    pack = one_first(accelerator, lambda: open_pack(config))
    check_agreement(accelerator, config, pack.content)
    check_batch(config, accelerator.num_processes, len(pack.images))
    return pack
