"""Checks inside the compiled step, by jax.experimental.checkify; off, they cost nothing.

The step calls the `check_` functions, which do nothing unless it was wrapped by `checked`: nor may
they leave a trace, since checkify numbers its checks through a process, and a step with such
numbers in it would be another program for every cache of compiled ones. The
wrapped step runs all of them on every device and gives what they found out with its metrics, under
ERROR; `raise_error` reads it on the host.
"""

from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import checkify

from uniface_jax.runtime.parallel import AXIS, Step

ERROR = "check"
_CHECKING: ContextVar[bool] = ContextVar("checking", default=False)  # while `checked` traces


class CheckError(RuntimeError):
    """A check inside the step failed; the message is the check's, with step and device."""


def checked(step: Step) -> Callable[[Any, Mapping[str, jax.Array]], tuple[Any, dict[str, Any]]]:
    """Return a per-device step with what its checks found under ERROR, [devices, ...]."""

    def checking(state: Any, batch: Mapping[str, jax.Array]) -> Any:
        token = _CHECKING.set(True)
        try:
            return step(state, batch)
        finally:
            _CHECKING.reset(token)

    with_error = checkify.checkify(checking, errors=checkify.user_checks)

    def run(state: Any, batch: Mapping[str, jax.Array]) -> tuple[Any, dict[str, Any]]:
        error, (state, metrics) = with_error(state, batch)
        everywhere = jax.tree.map(lambda x: jax.lax.all_gather(x, AXIS), error)
        return state, {**metrics, ERROR: everywhere}

    return run


def _check(true: jax.Array, message: str, **values: jax.Array) -> None:
    if _CHECKING.get():
        checkify.debug_check(true, message, **values)


def raise_error(step: int, error: Any) -> None:
    """Raise CheckError for the first device whose checks found something."""
    devices = jax.tree.leaves(error)[0].shape[0] if jax.tree.leaves(error) else 0
    for device in range(devices):
        message = jax.tree.map(lambda x, d=device: x[d], error).get()
        if message:
            found = message.splitlines()[0].removesuffix(" (`check` failed)")
            raise CheckError(f"step {step}, device {device}: {found}")


def check_labels(labels: jax.Array, num_classes: int) -> None:
    """Check that the labels [b] of one device are classes."""
    _check(
        jnp.all((labels >= 0) & (labels < num_classes)),
        f"labels from {{low}} to {{high}}, expected 0 to {num_classes - 1}",
        low=jnp.min(labels),
        high=jnp.max(labels),
    )


def check_state(prototypes: jax.Array, valid: jax.Array, batch_stats: Any) -> None:
    """Check that prototypes [S, D] have a direction where valid [S], and are zero elsewhere.

    Of [S, K, D] every one of the K.
    """
    square = jnp.sum(jnp.square(prototypes), -1)
    if square.ndim > 1:
        square = jnp.where(valid, jnp.min(square, 1), jnp.max(square, 1))
    good = jnp.isfinite(square) & ((square > 0) | ~valid)
    _check(
        jnp.all(good),
        "row {row} of this device's prototypes is zero or not finite",
        row=jnp.argmin(good),
    )
    _check(jnp.all(jnp.where(valid, 0, square) == 0), "padding rows have moved")
    for path, value in jax.tree_util.tree_leaves_with_path(batch_stats):
        name = jax.tree_util.keystr(path)
        low = 0 if name.endswith("['var']") else -jnp.inf
        _check(
            jnp.all(jnp.isfinite(value) & (value >= low)), f"batch statistics {name} out of range"
        )


def check_gradients(gradients: Any, losses: jax.Array) -> None:
    """Check that every gradient and the losses of all micro-batches are finite."""
    _check(jnp.all(jnp.isfinite(losses)), "the loss is {loss}", loss=jnp.max(losses))
    for path, value in jax.tree_util.tree_leaves_with_path(gradients):
        name = jax.tree_util.keystr(path)
        _check(jnp.all(jnp.isfinite(value)), f"gradient of {name} is not finite")
