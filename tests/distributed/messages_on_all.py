"""Run by test_communication.py through the launcher: the all-reduces of a real iteration against those counted."""

import sys
from pathlib import Path

from torch.profiler import ProfilerActivity, profile

from benchmarks.communication import messages
from gan.config import parse
from gan.data.pack import open_pack
from gan.processes import start_processes, together
from gan.run_folder import RunFolder
from gan.trainer import Trainer

config = parse(sys.argv[1:])
accelerator = start_processes(config)
folder = RunFolder(Path(str(config.out)))
together(accelerator, folder.create if accelerator.is_main_process else lambda: None)
pack = open_pack(config)
trainer = Trainer(config, accelerator, folder, pack)
for iteration in range(2):  # DDP bundles anew after its first iteration
    trainer.iterate(iteration)
with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as profiler:
    trainer.iterate(2)
events = [event.input_shapes[0] for event in profiler.events() if event.name == "gloo:all_reduce"]
elements = {False: [], True: []}  # type: ignore[var-annotated]
for shape in events:
    count = 1
    for length in shape:
        count *= length
    elements[len(shape) == 3].append(4 * count)
gradients, statistics = messages(config, accelerator.num_processes)
assert sorted(elements[False]) == sorted(gradients), (elements[False], gradients)
assert sorted(elements[True]) == sorted(statistics), (elements[True], statistics)
print("as counted")
accelerator.state.destroy_process_group()
