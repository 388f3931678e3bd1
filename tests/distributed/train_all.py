"""Run by test_world_size.py through the launcher: several short runs, one after the other, in one group of processes.

Arguments: a folder for the runs, and a JSON object {name: [words of train.py, …]}.
"""

import json
import sys
from pathlib import Path

from gan.config import parse
from gan.processes import start_processes, together
from gan.run import open_images
from gan.run_folder import RunFolder
from gan.trainer import Trainer
from gan.watchdog import Watchdog

configs = {name: parse([*words, "--out", f"{sys.argv[1]}/{name}"]) for name, words in json.loads(sys.argv[2]).items()}
accelerator = start_processes(next(iter(configs.values())))
for config in configs.values():
    folder = RunFolder(Path(str(config.out)))
    together(accelerator, folder.create if accelerator.is_main_process else lambda: None)
    pack = open_images(config, accelerator)
    Trainer(config, accelerator, folder, pack).run(Watchdog(accelerator, limit_s=60, farewell=""))
accelerator.state.destroy_process_group()
