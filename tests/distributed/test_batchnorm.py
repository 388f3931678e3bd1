import subprocess
import sys

import pytest

from tests.conftest import ROOT, with_processes


@pytest.mark.parametrize("processes", [2, 3])
def test_batchnorm_over_processes_is_batchnorm_of_the_whole_batch(processes: int) -> None:
    """Values, first and second derivatives, running statistics, precision, conversion."""
    command = [
        "-m",
        "accelerate.commands.launch",
        *with_processes(processes),
        "-m",
        "tests.distributed.batchnorm_on_all",
    ]
    result = subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("agrees") == processes
