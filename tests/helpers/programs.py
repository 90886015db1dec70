"""What JAX has compiled in this process, which a worker of thousands of tests cannot keep whole."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import jax
import pytest

from uniface_jax.runtime import tracing

# Every program takes regions of memory, of which Linux allows a process 65,530; where there are no
# more of them, LLVM aborts.
MOST_REGIONS = 20_000
_REGIONS = Path("/proc/self/maps")


def forget_programs() -> None:
    """Let go of compiled programs, where this process has many regions of memory by now."""
    if _REGIONS.exists() and _REGIONS.read_bytes().count(b"\n") > MOST_REGIONS:
        jax.clear_caches()
        gc.unfreeze()  # programs are in cycles with what was traced
        gc.collect()


def forget_forms() -> None:
    """Let forms of layers be traced anew."""
    tracing._kept.cache_clear()


@contextmanager
def patched_forms() -> Iterator[pytest.MonkeyPatch]:
    """Patch what forms of layers read: none traced before is taken within, and none after it."""
    forget_forms()
    try:
        with pytest.MonkeyPatch.context() as patched:
            yield patched
    finally:
        forget_forms()
