"""Memory that a step on CPUs gave back, kept for the next one, where glibc allocates.

glibc has the system map memory as large as a step's anew each time, and the system makes every page
of it anew: a quarter of a step's processor time. Told to keep it, a run takes no more than before
under two conditions. Steps run one at a time in the thread that asks for them: else XLA takes a
step's memory before it gives back that of the last one, and from an arena that cannot hold it. And
what was there before, of the compiler and of the first step, goes back first (malloc_trim), so that
nothing lies where the next one's would.

A command decides that by `run_steps_alone`. UNIFACE_KEEP_MEMORY=0 leaves it out, and so does any
setting of glibc's allocator by the user: then that holds.
"""

import ctypes
import os
from typing import Any

import jax

SWITCH = "UNIFACE_KEEP_MEMORY"
_DISPATCH = "jax_cpu_enable_async_dispatch"
# Of glibc's malloc.h. -1 disables trimming.
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4


def is_wanted() -> bool:
    """Return True where glibc allocates, and neither switch nor user has set it otherwise."""
    settings = (name.startswith("MALLOC_") for name in os.environ)
    tuned = "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", "")
    left_out = os.environ.get(SWITCH) == "0" or any(settings) or tuned
    return not left_out and hasattr(_libc(), "gnu_get_libc_version")


def run_steps_alone() -> None:
    """Let CPUs run each program in the thread that asks for it; before JAX starts its backends.

    Not in one of several processes, which wait for each other.
    """
    if is_wanted() and not jax.distributed.is_initialized():
        jax.config.update(_DISPATCH, False)


def keep() -> None:
    """Keep all memory that is given back from now on; after the first step.

    For programs on CPUs of a process that runs them alone, else nothing.
    """
    if jax.default_backend() != "cpu" or jax.config.values[_DISPATCH] or not is_wanted():
        return
    libc = _libc()
    libc.mallopt(_M_MMAP_MAX, 0)
    libc.mallopt(_M_TRIM_THRESHOLD, -1)
    give_back()


def give_back() -> None:
    """Give the pages that nothing lies in to the system, where the C library can."""
    if trim := getattr(_libc(), "malloc_trim", None):
        trim(0)


def _libc() -> Any:
    return ctypes.CDLL(None)
