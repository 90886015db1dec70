"""A run that is too large for its devices: refused in one line, with the ways out."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax
from ml_collections import ConfigDict

from uniface_jax.errors import UserError
from uniface_jax.runtime import memory

GB = 1e9


@contextmanager
def in_one_line(config: ConfigDict) -> Iterator[None]:
    """Turn the error of JAX for a lack of memory into a UserError with the ways out."""
    try:
        yield
    except jax.errors.JaxRuntimeError as e:
        if not memory.is_exhausted(e):
            raise
        reason = " ".join(str(e).split())[:200]
        raise UserError(f"not enough memory ({reason}); {ways_out(config)}") from e


def check_program(program: Any, config: ConfigDict, devices: list[jax.Device]) -> None:
    """Raise UserError where a compiled step takes more than a machine of CPUs has free.

    Its system would end the process without a word, or after minutes in which it swaps. The memory
    of accelerators is theirs alone, and they say when it is not enough.
    """
    local = [device for device in devices if device.process_index == jax.process_index()]
    if local[0].platform != "cpu":
        return
    needed, free = memory.working_bytes(program), memory.free_bytes()
    if needed is None or free is None or needed * len(local) <= free:
        return
    raise UserError(
        f"not enough memory: a step takes {needed * len(local) / GB:.1f} GB beside the weights, "
        f"and {free / GB:.1f} GB are free here; {ways_out(config)}"
    )


def ways_out(config: ConfigDict) -> str:
    """Return what to change in a config whose step does not fit into memory."""
    ways = []
    smaller = config.batch_size // 4
    if smaller >= 2:
        micro_batches = max(config.micro_batches // 4, 1)
        ways.append(f"--config.batch_size={smaller} --config.micro_batches={micro_batches}")
    if not config.model.remat:
        ways.append("--config.model.remat=True")
    ways.append("a smaller network (--config.model.name=lresnet18 --config.model.stem_stride=2)")
    ways.append("--config=laptop, whose sizes are for CPUs")
    return f"ways out: {', '.join(ways)}; python -m uniface_jax.plan --here forecasts this machine"
