"""Checkpoints of a run as it goes on: written while training does, and what becomes of those that cannot be."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from typing import Any

from torch import Tensor

from gan import checkpoint, listing
from gan.config import CheckpointConfig
from gan.errors import RunError, reason
from gan.run_folder import RunFolder
from gan.telemetry.console import say


class Saver:
    """Writes checkpoints, one at a time, in a thread of its own. The main process' alone.

    What is saved is copied first, so training may change it at once. A second save waits for the first. So a run that
    is killed loses what came after its newest whole checkpoint, at most twice the interval.
    """

    def __init__(self, folder: RunFolder, options: CheckpointConfig, same_command: str = "the same command"):
        """`same_command`: what goes on with the run, in words."""
        self.folder, self.options, self.same_command = folder, options, same_command
        self.thread = ThreadPoolExecutor(1, "saver")
        self.writing: Future[None] | None = None
        self.failures = 0
        """In a row."""

    def save(self, iteration: int, tensors: checkpoint.TensorGroups, state: dict[str, Any], keep: int | None,
             last: bool, describe: Callable[[], None] = lambda: None) -> None:  # fmt: skip
        """A checkpoint that cannot be written is told and done without, unless it is the `last` of the run, which is
        waited for, or one of many. Raises RunError; for an earlier one too, unless this is the last.

        `describe` writes down what the run is, where its folder has been removed meanwhile.
        """
        self.settle(forgiving=last)
        try:
            if self.folder.restore():
                describe()
        except OSError as error:
            self.fail(iteration, error, last)
            return
        if last or not self.options.overlap:
            self.write(iteration, tensors, state, keep, last)
            return
        copies = {name: {key: copied(value) for key, value in group.items()} for name, group in tensors.items()}
        self.writing = self.thread.submit(self.write, iteration, copies, state, keep, last)

    def settle(self, forgiving: bool = False) -> None:
        """Wait for the checkpoint that is being written. Raises RunError where that failed once too often."""
        writing, self.writing = self.writing, None
        fault = writing.exception() if writing else None
        if fault and not forgiving:
            raise fault
        if fault:
            say(f"Warning: {fault}")

    def wait(self, seconds: float) -> None:
        """Give it that long, whatever becomes of it."""
        writing = self.writing
        wait_for([writing] if writing else [], seconds)

    def close(self) -> None:
        """Leave nothing half written."""
        self.thread.shutdown()

    def write(self, iteration: int, tensors: checkpoint.TensorGroups, state: dict[str, Any], keep: int | None,
              last: bool) -> None:  # fmt: skip
        """In the thread, or in the one that waits."""
        try:
            checkpoint.save(self.folder.checkpoints, iteration, tensors, state, keep)
            self.failures = 0
        except Exception as error:  # nobody else would hear of it, and other processes would wait
            self.fail(iteration, error, last)

    def fail(self, iteration: int, error: Exception, last: bool) -> None:
        """One more that failed. Raises RunError where that is one too many."""
        self.failures += 1
        newest = next((path.name for path in listing.listed(self.folder.checkpoints)), None)
        fault = (
            f"the checkpoint at iteration {iteration} could not be saved ({reason(error)}); "
            f"{f'the last good one is {newest}' if newest else 'there is none yet'}."
        )
        most = self.options.max_failures
        if last or self.failures >= most:
            raise RunError(f"{fault} Make room; {self.same_command} then goes on from there.") from None
        say(f"Warning: {fault} Training goes on ({self.failures} of at most {most} in a row).")


def copied(value: Tensor) -> Tensor:
    """In the host's memory; an update in place of `value` no longer reaches it."""
    return value.detach().to("cpu", copy=True)
