"""Checks inside the compiled step, by jax.experimental.checkify; off, they cost nothing.

Functions of the step call `checkify.debug_check`, which does nothing unless the step was wrapped by
`checked`. The wrapped step runs all of them on every device and gives what they found out with its
metrics, under ERROR; `raise_error` reads it on the host.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
from jax.experimental import checkify

from uniface_jax.parallel import AXIS, Step

ERROR = "check"


class CheckError(RuntimeError):
    """A check inside the step failed; the message is the check's, with step and device."""


def checked(step: Step) -> Callable[[Any, Mapping[str, jax.Array]], tuple[Any, dict[str, Any]]]:
    """A per-device step whose metrics hold under ERROR what the checks found, [devices, ...]."""
    with_error = checkify.checkify(step, errors=checkify.user_checks)

    def run(state: Any, batch: Mapping[str, jax.Array]) -> tuple[Any, dict[str, Any]]:
        error, (state, metrics) = with_error(state, batch)
        everywhere = jax.tree.map(lambda x: jax.lax.all_gather(x, AXIS), error)
        return state, {**metrics, ERROR: everywhere}

    return run


def raise_error(step: int, error: Any) -> None:
    """Raises CheckError for the first device whose checks found something."""
    devices = jax.tree.leaves(error)[0].shape[0] if jax.tree.leaves(error) else 0
    for device in range(devices):
        message = jax.tree.map(lambda x, d=device: x[d], error).get()
        if message:
            raise CheckError(f"step {step}, device {device}: {message.splitlines()[0]}")
