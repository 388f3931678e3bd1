"""A process whose group outlives its use is now and then aborted on its way out, when Python ends before a thread of
gloo has let go of its last tensor: the run is finished, and the launcher reports a failure."""

from pathlib import Path

from tests.conftest import TINY, run_module, with_processes


def test_a_run_leaves_no_process_group_behind(images: Path, tmp_path: Path) -> None:
    words = (*TINY, "--data", images, "--out", tmp_path, "--iterations", 2, "--eval.every", 2)
    result = run_module("tests.distributed.ending", *words, launcher=with_processes(2))
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("all gone") == 2
