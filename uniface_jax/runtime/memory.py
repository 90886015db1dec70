"""Memory of this machine: what is free, and what a compiled program will take of it."""

from pathlib import Path
from typing import Any

import jax

_KIB = 1024
_UNLIMITED = 1 << 60  # what a cgroup without a limit says, at least


def free_bytes() -> int | None:
    """Return the bytes that this process can still have, swap among them; None where unknown.

    The limit of a container counts where it is lower than what the machine has (cgroup 1 and 2).
    """
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        values = {name: int(rest.split()[0]) * _KIB for name, _, rest in map(_split, lines)}
        free = values["MemAvailable"] + values.get("SwapFree", 0)
    except (OSError, ValueError, KeyError, IndexError):
        return None
    for limit_file, used_file in (
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        (
            "/sys/fs/cgroup/memory/memory.limit_in_bytes",
            "/sys/fs/cgroup/memory/memory.usage_in_bytes",
        ),
    ):
        try:
            limit, used = (int(Path(file).read_text()) for file in (limit_file, used_file))
        except (OSError, ValueError):  # no such cgroup, or "max"
            continue
        if limit < _UNLIMITED:
            free = min(free, max(limit - used, 0))
    return free


def _split(line: str) -> tuple[str, str, str]:
    return line.partition(":")


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
