"""What is said on the terminal, and what is not."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path


def test_what_cannot_be_said_is_not_said() -> None:
    code = """
import os
from gan.telemetry.console import fall_silent, say
for number in range(10_000):
    say("a line")
fall_silent()
open(os.environ["DONE"], "w").close()
"""
    for out in ("/dev/full", None):
        with tempfile.TemporaryDirectory() as scratch:
            reader, pipe = os.pipe()
            os.close(reader)
            with open(out or pipe, "w") as stdout:
                environment = os.environ | {"DONE": f"{scratch}/done"}
                result = subprocess.run(
                    [sys.executable, "-c", code], stdout=stdout, stderr=subprocess.PIPE, env=environment
                )
            assert (result.returncode, result.stderr) == (0, b"")
            assert Path(scratch, "done").exists()
