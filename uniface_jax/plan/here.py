"""Devices of this machine, as a plan takes them: how many, their memory, and their speed."""

import time
from typing import NamedTuple

import jax
import jax.numpy as jnp

from uniface_jax.errors import UserError
from uniface_jax.runtime import memory

SIDE = 1024  # of the matrices whose product is timed
TRIES = 5


class Found(NamedTuple):
    """Devices of one kind; free bytes of each; TFLOP/s, None where only a data sheet says it."""

    devices: int
    memory: float
    tflops: float | None


def measured() -> Found:
    """Return this machine's devices; a CPU's speed is measured by products of matrices.

    Raises UserError where it cannot be told how much memory there is.
    """
    devices = jax.local_devices()
    if devices[0].platform == "cpu":
        free = memory.free_bytes()
        if free is None:
            raise UserError(
                "--here: this system does not say how much memory is free; give --device_memory"
            )
        return Found(len(devices), free / len(devices), _matrix_tflops() / len(devices))
    limit = (devices[0].memory_stats() or {}).get("bytes_limit")
    if not limit:
        raise UserError(
            "--here: the device does not say how much memory it has; give "
            "--device_memory without --here"
        )
    return Found(len(devices), float(limit), None)


def _matrix_tflops() -> float:
    """Return the TFLOP/s of float32 products of SIDE x SIDE matrices, the best of TRIES."""
    product = jax.jit(jnp.matmul)
    matrix = jnp.ones((SIDE, SIDE), jnp.float32)
    product(matrix, matrix).block_until_ready()
    best = float("inf")
    for _ in range(TRIES):
        began = time.perf_counter()
        product(matrix, matrix).block_until_ready()
        best = min(best, time.perf_counter() - began)
    return 2 * SIDE**3 / best / 1e12
