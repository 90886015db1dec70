"""Marks of tests that need XLA's compilers for GPUs or TPUs, which make test-accelerators installs.

UNIFACE_TEST_ACCELERATORS=1, as make sets it, lets a test whose compiler is missing fail.
"""

import contextlib
import importlib.util
import os

import pytest


def has(*modules):
    """Return whether one of the modules can be imported."""
    for module in modules:
        with contextlib.suppress(ModuleNotFoundError):
            if importlib.util.find_spec(module):
                return True
    return False


GPU = has("jax_plugins.xla_cuda12", "jax_plugins.xla_cuda13")
TPU = has("libtpu")


def _marks(found, of):
    """Return the marks of what needs a compiler: it takes minutes, and is skipped without one."""
    wanted = os.environ.get("UNIFACE_TEST_ACCELERATORS") == "1"
    why = f"XLA's compiler for {of} is not here: make test-accelerators"
    return [
        pytest.mark.slow,
        pytest.mark.accelerator,
        pytest.mark.skipif(not found and not wanted, reason=why),
    ]


FOR_GPU, FOR_TPU = _marks(GPU, "CUDA"), _marks(TPU, "TPUs")
EVERY_KIND = [pytest.param("h100", marks=FOR_GPU), pytest.param("v5e:2x4", marks=FOR_TPU)]
