"""Every figure of docs/performance.md, one command after the other: python -m benchmarks

With a GPU all widths, batches, sizes and precisions; on a CPU, where the largest take a minute an iteration, some.
"""

import subprocess
import sys

import torch

ON_GPU = [
    "speed --width 64 128 --batch-size 64 128 256 --resolution 64 128 --precision no bf16 fp16",
    "levers --rounds 200 --data sprites --model.width 64 --batch-size 64",
    "levers --rounds 200 --data sprites --model.width 128 --batch-size 128",
    "costs",
    "telemetry",
    "memory",
]
ON_CPU = [
    "levers --rounds 12 --data sprites --model.width 64 --batch-size 64",
    "costs",
    "speed --precision no bf16",
    "speed --batch-size 128 256 --rounds 2 --iterations 5",
    "speed --resolution 128 --precision no bf16 --rounds 2 --iterations 5",
    "speed --width 128 --precision no bf16 --rounds 2 --iterations 5",
    "speed --width 128 --resolution 128 --rounds 2 --iterations 5",
    "telemetry",
    "memory",
]


def main() -> None:
    failed = 0
    for words in ON_GPU if torch.cuda.is_available() else ON_CPU:
        print(f"\n## python -m benchmarks.{words}", flush=True)
        name, *flags = words.split()
        failed += subprocess.run([sys.executable, "-m", f"benchmarks.{name}", *flags]).returncode != 0
    sys.exit(f"{failed} of them failed." if failed else 0)


if __name__ == "__main__":
    main()
