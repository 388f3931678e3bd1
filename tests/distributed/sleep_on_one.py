"""Run by test_lost_processes.py: train.py, but process 1 falls asleep when it fetches batch number SLEEP_AT."""

import os
import sys
import time

from gan.cli import train
from gan.data import batches
from gan.randomness import image_order

fetched = 0


def drowsy(*arguments: int) -> object:
    global fetched
    fetched += 1
    if fetched == int(os.environ["SLEEP_AT"]) and os.environ["RANK"] == "1":
        time.sleep(1000)
    return image_order(*arguments)


setattr(batches, "image_order", drowsy)  # noqa: B010  # mypy does not let a module's import be assigned
sys.exit(train(sys.argv[1:]))
