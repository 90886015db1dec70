"""Marks of tests that need XLA's compilers for GPUs or TPUs, which make test-accelerators installs.

UNIFACE_TEST_ACCELERATORS=1, as make sets it, lets a test whose compiler is missing fail.
"""

import os

import pytest

from uniface_jax.plan import topology

GPU, TPU = topology.installed("cuda"), topology.installed("tpu")


def _mark(found, of):
    """Return a decorator of what needs a compiler, which is skipped without, and its marks."""
    wanted = os.environ.get("UNIFACE_TEST_ACCELERATORS") == "1"
    why = f"XLA's compiler for {of} is not here: make test-accelerators"
    marks = [
        pytest.mark.slow,
        pytest.mark.accelerator,
        pytest.mark.skipif(not found and not wanted, reason=why),
    ]

    def marked(test):
        for mark in marks:
            test = mark(test)
        return test

    return marked, marks


for_gpu, FOR_GPU = _mark(GPU, "CUDA")
for_tpu, FOR_TPU = _mark(TPU, "TPUs")
EVERY_KIND = [pytest.param("h100", marks=FOR_GPU), pytest.param("v5e:2x4", marks=FOR_TPU)]
