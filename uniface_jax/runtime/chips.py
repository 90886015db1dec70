"""Kinds of devices, and the factors of few bits that they multiply as such."""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

# By makers' data sheets, since when devices multiply such factors: GPUs by compute capability.
_SINCE: Mapping[str, Mapping[str, tuple[int, int]]] = {
    "float8_e4m3fn": {"gpu": (8, 9), "tpu": (7, 0)},
    "int8": {"gpu": (7, 5), "tpu": (4, 0)},
}


class Chip(NamedTuple):
    """Kind of a device: JAX's platform, and a GPU's compute capability or a TPU's v5 as (5, 0)."""

    platform: str
    generation: tuple[int, int]


def chip_of(device: Any) -> Chip | None:
    """Return the kind of one of JAX's devices; None where it does not tell."""
    if device.platform == "cpu":
        return Chip("cpu", (0, 0))
    told = getattr(device, "compute_capability", device.device_kind)  # as 9.0, TPU v5 lite, TPU7x
    found = re.match(r"(?:TPU ?v?)?(\d+)(?:\.(\d+))?", str(told))
    return Chip(device.platform, (int(found[1]), int(found[2] or 0))) if found else None


def multiplies(chip: Chip, dtype: str) -> bool:
    """Return False where a device widens factors of this type of 8 bits before it multiplies them.

    Example:
        >>> [multiplies(Chip("gpu", (major, 0)), "float8_e4m3fn") for major in (8, 9)]
        [False, True]
    """
    since = _SINCE[dtype].get(chip.platform)
    return since is not None and chip.generation >= since
