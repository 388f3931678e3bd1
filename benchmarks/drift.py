"""How far runs drift apart that differ in nothing but the order of their sums: python -m benchmarks.drift

A run of one process and one thread is compared with one process of two threads, and with two processes. Printed is the
largest difference between two weights. Needs two CPU cores, taskset (util-linux) and no GPU; takes three minutes.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

from gan.checkpoint import Checkpoint, load

ROOT = Path(__file__).parents[1]
AT = (1, 16, 50, 100)
SETTINGS = (
    "--resolution 32 --model.width 16 --batch-size 32 --iterations 100 --checkpoint.every 1 --checkpoint.keep 100"
)
WAYS = {"two threads": (1, 2), "two processes": (2, 1)}


def checkpoints(folder: Path, processes: int, threads: int, *words: str) -> list[Checkpoint]:
    """A run's checkpoints after each number of iterations in AT."""
    launcher = ["--config_file", str(ROOT / "accelerate_configs/cpu_2.yaml"), "--num_processes", str(processes)]
    script = [
        str(ROOT / "train.py"),
        *SETTINGS.split(),
        "--track.wandb",
        "disabled",
        "--track.report",
        "False",
        "--out",
        str(folder),
        *words,
    ]
    command = [sys.executable, "-m", "accelerate.commands.launch", *launcher, *script]
    if processes == threads == 1:
        command = ["taskset", "-c", "0", *command]  # on one core: a run uses all it may
    subprocess.run(command, check=True, capture_output=True)
    return [load(folder / "checkpoints" / f"iteration-{iterations:08d}") for iterations in AT]


def difference(one: Checkpoint, two: Checkpoint) -> float:
    pairs = [(value, two.tensors[group][name]) for group in ("generator", "discriminator")
             for name, value in one.tensors[group].items() if name.endswith("weight")]  # fmt: skip
    return max((a.double() - b.double()).abs().max().item() for a, b in pairs)


def main() -> None:
    print("| precision | learning rate | compared with one process, one thread | " + " | ".join(map(str, AT)) + " |")
    print("|---" * (3 + len(AT)) + "|")
    for dtype, rate in (("float32", "2e-4"), ("float64", "2e-4"), ("float64", "5e-4")):
        words = ("--dtype", dtype, "--optim-d.lr", rate, "--optim-g.lr", rate)
        with tempfile.TemporaryDirectory() as place:
            reference = checkpoints(Path(place, "reference"), 1, 1, *words)
            for name, (processes, threads) in WAYS.items():
                others = checkpoints(Path(place, name), processes, threads, *words)
                cells = [f"{difference(one, two):.0e}" for one, two in zip(reference, others, strict=True)]
                print(f"| {dtype} | {rate} | {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
