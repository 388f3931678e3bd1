import pytest

from tests.conftest import run_module, with_processes


@pytest.mark.parametrize("processes", [2, 3])
def test_batchnorm_over_processes_is_batchnorm_of_the_whole_batch(processes: int) -> None:
    """Values, first and second derivatives, running statistics, precision, conversion."""
    result = run_module("tests.distributed.batchnorm_on_all", launcher=with_processes(processes))
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("agrees") == processes


@pytest.mark.usefixtures("on_gpu")
def test_torchs_own_kernel_gives_the_same() -> None:
    """It runs on GPUs only; one is enough for two processes."""
    result = run_module("tests.distributed.batchnorm_on_all", "torch", launcher=with_processes(2))
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("agrees") == 2
