"""Run by test_communication.py through the launcher: the all-reduces of real iterations against those counted.

Arguments: a folder for the runs, and a JSON object {name: [words of train.py, …]}. Prints a JSON object: of each name,
the bytes found and counted, of gradients and of BatchNorm's statistics.
"""

import json
import sys
from math import prod
from pathlib import Path

from accelerate import Accelerator
from torch.profiler import ProfilerActivity, profile

from benchmarks.communication import messages
from gan.config import Config, parse
from gan.data.pack import open_pack
from gan.processes import start_processes, together
from gan.run_folder import RunFolder
from gan.trainer import Trainer


def compare(config: Config, accelerator: Accelerator) -> dict[str, list[list[int]]]:
    """Found and counted."""
    folder = RunFolder(Path(str(config.out)))
    together(accelerator, folder.create if accelerator.is_main_process else lambda: None)
    trainer = Trainer(config, accelerator, folder, open_pack(config))
    for iteration in range(2):  # DDP bundles anew after its first iteration
        trainer.iterate(iteration)
    with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as profiler:
        trainer.iterate(2)
    shapes = [event.input_shapes[0] for event in profiler.events() if event.name == "gloo:all_reduce"]
    gradients, statistics = (
        [4 * prod(shape) for shape in shapes if (len(shape) == 3) == wide] for wide in (False, True)
    )
    counted = messages(config, accelerator.num_processes)
    return {
        "gradients": [sorted(gradients), sorted(counted[0])],
        "statistics": [sorted(statistics), sorted(counted[1])],
    }


configs = {name: parse([*words, "--out", f"{sys.argv[1]}/{name}"]) for name, words in json.loads(sys.argv[2]).items()}
accelerator = start_processes(next(iter(configs.values())))
print(json.dumps({name: compare(config, accelerator) for name, config in configs.items()}))
accelerator.state.destroy_process_group()
