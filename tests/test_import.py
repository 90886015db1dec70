"""What importing the package costs."""

import subprocess
import sys

import pytest

HEAVY = ("jax", "numpy", "flax", "tensorflow", "onnx", "cv2", "matplotlib")


@pytest.mark.parametrize("module", ["uniface_jax", "uniface_jax.cli.console"])
def test_importing_loads_no_heavy_package(module):
    code = f"import sys, {module}; print(*sorted(sys.modules.keys() & {set(HEAVY)}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_importing_takes_little_beyond_jax():
    code = (
        "import jax, time; begin = time.perf_counter(); import uniface_jax; "
        "print(time.perf_counter() - begin)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 0.2
