"""What is said on the terminal, and what is not."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from gan.telemetry.console import aligned


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


def test_columns_are_as_wide_as_their_widest_cell_and_no_line_ends_in_blanks() -> None:
    lines = [["name", "images", "note"], ["a", "1", ""], ["longest", "20", "x"]]
    assert aligned(lines, left=(0, 2)) == "name     images  note\na             1\nlongest      20  x"
    assert aligned(lines) == "name     images  note\na             1\nlongest      20     x"
