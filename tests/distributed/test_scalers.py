from pathlib import Path

from tests.conftest import TINY, run_module, with_processes


def test_an_overflow_on_one_process_skips_the_update_on_all(images: Path, tmp_path: Path) -> None:
    words = (*TINY, "--data", images, "--out", tmp_path, "--iterations", 9)
    result = run_module("tests.distributed.scalers_on_all", *words, launcher=with_processes(2))
    assert result.returncode == 0, result.stderr
    for accumulation in (1, 2):
        assert result.stdout.count(f"agrees at accumulation {accumulation}") == 2
