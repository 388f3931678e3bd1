"""Peak memory of training: python -m benchmarks.memory

Counted tensors (gan/memory.py), and on a GPU also the peak that CUDA's allocator saw in three real iterations.
"""

import dataclasses
import gc
import tempfile
from pathlib import Path

import torch

from benchmarks.settings import SETTINGS
from gan.config import Config, TrackConfig
from gan.data.pack import open_pack
from gan.memory import training_bytes
from gan.processes import start_processes
from gan.run_folder import RunFolder
from gan.trainer import Trainer

BATCHES = (64, 128, 256)


def measured_bytes(config: Config) -> int:
    """The peak of three iterations on this GPU, the images in the machine's memory."""
    with tempfile.TemporaryDirectory() as folder:
        options = dataclasses.replace(config.data_options, resident="disk")
        config = dataclasses.replace(config, data="sprites", data_options=options, out=Path(folder),
                                     track=TrackConfig(wandb="disabled"))  # fmt: skip
        accelerator, run = start_processes(config), RunFolder(Path(folder))
        run.create()
        pack = open_pack(config)
        gc.collect()  # the trainer before, which is part of a cycle
        torch.cuda.reset_peak_memory_stats()
        trainer = Trainer(config, accelerator, run, pack)
        for iteration in range(3):
            trainer.iterate(iteration)
        return torch.cuda.max_memory_allocated()


def main() -> None:
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    print(f"GiB, float32 / bf16, counted{f'; measured on {gpu}' if gpu else ''}\n")
    print("| settings | " + " | ".join(f"batch {batch}" for batch in BATCHES) + " | its own batch |")
    print("|---|" + "---|" * (len(BATCHES) + 1))
    for name, config in SETTINGS.items():
        cells = []
        for batch in (*BATCHES, config.batch_size):
            sized = dataclasses.replace(config, batch_size=batch, kimg=1)
            counted = [training_bytes(sized, batch, precision) / 2**30 for precision in ("no", "bf16")]
            cells.append(f"{counted[0]:.2f} / {counted[1]:.2f}")
            if gpu:
                cells[-1] += f"; {measured_bytes(sized) / 2**30:.2f}"
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
