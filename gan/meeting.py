"""Processes that meet, and add up a number of each: what `gan doctor` tries, by python -m gan.meeting gloo|nccl."""

import os
import socket
import subprocess
import sys
from datetime import timedelta


def two_meet(backend: str, seconds: float) -> str:
    """Start two processes on this machine that have to find each other and add up 1 + 2. Why that did not work within
    `seconds`, or nothing."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {**os.environ, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "gan.meeting", backend],
            env={**shared, "RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        ended = [process.communicate(timeout=seconds) for process in started]
    except subprocess.TimeoutExpired:
        return f"nothing came of it in {seconds:g} s"
    finally:
        for process in started:
            process.kill()
            process.communicate()
    for process, (out, err) in zip(started, ended, strict=True):
        if out.split()[-1:] != ["3.0"]:  # NCCL may have said something before
            said = (out + err).strip().splitlines() or [f"it ended with status {process.returncode}"]
            return said[-1][:300]
    return ""


def meet(backend: str) -> float:
    """The sum of 1, 2, …, WORLD_SIZE, of which each process has brought one."""
    import torch  # two_meet, which the process that waits calls, does without
    from torch import distributed

    rank = int(os.environ["RANK"])
    device = torch.device("cuda", rank) if backend == "nccl" else torch.device("cpu")
    distributed.init_process_group(backend, timeout=timedelta(seconds=30))
    number = torch.tensor(rank + 1.0, device=device)
    distributed.all_reduce(number)
    total = float(number)
    distributed.destroy_process_group()
    return total


if __name__ == "__main__":
    print(meet(sys.argv[1]))
