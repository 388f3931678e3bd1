"""A launcher that dies must not leave its processes behind, training. Imports nothing heavy: it comes first."""

import ctypes
import os
import signal
import sys

LAUNCHERS = {"ACCELERATE_MIXED_PRECISION", "TORCHELASTIC_RUN_ID"}
"""Environment variables by which accelerate launch and torchrun are known."""
PARENT_DEATH_SIGNAL = 1  # Linux: prctl(PR_SET_PDEATHSIG, …)


def end_with_launcher() -> None:
    """Under a launcher, have the system send SIGTERM when it dies, of a signal that it does not pass on. Linux only."""
    if sys.platform != "linux" or not LAUNCHERS & os.environ.keys():
        return
    launcher = os.getppid()
    ctypes.CDLL(None).prctl(PARENT_DEATH_SIGNAL, signal.SIGTERM)
    if os.getppid() != launcher or (launcher == 1 and adopted()):  # it was quicker
        os.kill(os.getpid(), signal.SIGTERM)


def adopted() -> bool:
    """Whether process 1, our parent, is not the launcher, as it may be in a container."""
    launched = {"ACCELERATE_DYNAMO_BACKEND", "TORCHELASTIC_RUN_ID"} & os.environ.keys()  # nobody sets those by hand
    try:
        with open("/proc/1/cmdline", "rb") as file:
            command = file.read()
    except OSError:  # the system hides other users' processes
        return False
    return bool(launched) and b"accelerate" not in command and b"torch" not in command
