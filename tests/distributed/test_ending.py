"""A process whose group outlives its use is now and then aborted on its way out, when Python ends before a thread of
gloo has let go of its last tensor: the run is finished, and the launcher reports a failure."""

from pathlib import Path

import pytest

from tests.conftest import TINY, run_module, with_processes


@pytest.mark.parametrize("how", ["untold", "told"])
def test_a_run_leaves_no_process_group_behind(how: str, images: Path, tmp_path: Path) -> None:
    """Not when it is finished, and not when it was told to stop."""
    words = (how, *TINY, "--data", images, "--out", tmp_path, "--iterations", 2, "--eval.every", 2)
    result = run_module("tests.distributed.ending", *words, launcher=with_processes(2))
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("all gone") == 2
