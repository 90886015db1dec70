"""Memory of this machine: what is free, and what a compiled program will take of it."""

import resource
import sys
from pathlib import Path
from typing import Any

import jax

_KIB = 1024
_MEMINFO = Path("/proc/meminfo")
_STATM = Path("/proc/self/statm")
# Folder, limit, use, and the counts of files' pages and of shared memory among these.
_CGROUPS = (
    (Path("/sys/fs/cgroup"), "memory.max", "memory.current", "file", "shmem"),
    (
        Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes", "memory.usage_in_bytes",
        "total_cache", "total_shmem",
    ),
)  # fmt: skip


def free_bytes() -> int | None:
    """Return the bytes that this process can still have, swap among them; None where unknown.

    The limits of a container (cgroup 1 and 2) and of the process (ulimit -v) count where they leave
    less than the machine has. Pages that only hold what is on disk are free: the system gives them
    up.
    """
    machine = _counts(_MEMINFO)
    if "MemAvailable" not in machine:
        return None
    free = (machine["MemAvailable"] + machine.get("SwapFree", 0)) * _KIB
    for folder, limit_file, used_file, files, shared in _CGROUPS:
        try:
            limit, used = (int((folder / name).read_text()) for name in (limit_file, used_file))
        except (OSError, ValueError):  # no such cgroup, or "max"
            continue
        counts = _counts(folder / "memory.stat")
        given_up = max(counts.get(files, 0) - counts.get(shared, 0), 0)
        free = min(free, max(limit - used + given_up, 0))
    return min(free, _addresses())


def _addresses() -> int:
    """Return the bytes of addresses that this process may still take."""
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit == resource.RLIM_INFINITY:
        return sys.maxsize
    taken = int(_STATM.read_text().split()[0]) * resource.getpagesize()
    return max(limit - taken, 0)


def _counts(file: Path) -> dict[str, int]:
    """Return the numbers of a file of lines of a name and a number; nothing of another one."""
    try:
        lines = [line.replace(":", " ").split() for line in file.read_text().splitlines()]
        return {words[0]: int(words[1]) for words in lines if len(words) > 1}
    except (OSError, ValueError):
        return {}


def working_bytes(program: Any) -> int | None:
    """Return what a compiled program takes while it runs beside its arguments, on one device.

    None where the compiler does not say.
    """
    try:
        return int(program.memory_analysis().temp_size_in_bytes)
    except (AttributeError, NotImplementedError, jax.errors.JaxRuntimeError):
        return None


def is_exhausted(error: BaseException) -> bool:
    """Return True for an error of JAX that says that a device, or this machine, has no room."""
    return isinstance(error, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" in str(error)
