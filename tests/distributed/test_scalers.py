from pathlib import Path

import pytest

from tests.conftest import TINY, run_module, with_processes


@pytest.mark.parametrize("accumulation", [1, 2])
def test_an_overflow_on_one_process_skips_the_update_on_all(accumulation: int, images: Path, tmp_path: Path) -> None:
    words = (*TINY, "--data", images, "--out", tmp_path, "--iterations", 9, "--accumulation", accumulation)
    result = run_module("tests.distributed.scalers_on_all", *words, launcher=with_processes(2))
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("agrees") == 2
