import subprocess
import sys


def test_openmp_is_told_not_to_spin_before_torch_loads_it() -> None:
    code = "import sys, os, gan; print(os.environ['GOMP_SPINCOUNT'], 'torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["1000", "False"]
