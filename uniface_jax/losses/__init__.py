"""The losses, by name. A new loss is one function in this package and one line in LOSSES.

Everything else, streaming over blocks of classes, sharding and sampling, is the head's business
(head/) and works for every entry.
"""

from collections.abc import Callable, Mapping
from inspect import signature
from typing import Any

from uniface_jax.errors import UserError
from uniface_jax.losses import adaptive, additive, softmax
from uniface_jax.losses.base import Elementwise, Loss

__all__ = ["LOSSES", "Elementwise", "Loss", "create"]

LOSSES: Mapping[str, Callable[..., Loss]] = {
    "uce": additive.uce,
    "bce": additive.bce,
    "nsl": softmax.nsl,
    "cosface": softmax.cosface,
    "arcface": softmax.arcface,
    "combined": softmax.combined,
    "sphereface": softmax.sphereface,
    "sphereface_r": softmax.sphereface_r,
    "sphereface_r_v2": softmax.sphereface_r_v2,
    "sphereface2": additive.sphereface2,
    "adaface": adaptive.adaface,
    "curricularface": adaptive.curricularface,
}

_ABOVE_ZERO = ("> 0", lambda value: value > 0)
_MARGIN = ("from 0 to below 1.5", lambda value: 0 <= value < 1.5)
_AT_LEAST_ONE = (">= 1", lambda value: value >= 1)

# Hyperparameter -> (its allowed range in words, the test).
_RANGES: Mapping[str, tuple[str, Callable[[float], bool]]] = {
    "scale": _ABOVE_ZERO,
    "margin": _MARGIN,
    "m1": _AT_LEAST_ONE,
    "m2": _MARGIN,
    "m3": _MARGIN,
    "negative_weight": _ABOVE_ZERO,
    "loss_weight": _ABOVE_ZERO,
    "balance": ("above 0 and below 1", lambda value: 0 < value < 1),
    "exponent": _AT_LEAST_ONE,
    "concentration": ("above 0, at most 1", lambda value: 0 < value <= 1),
    "interclass_filtering": ("from 0 (off) to below 1", lambda value: 0 <= value < 1),
}


def allowed(hyperparameter: str) -> str:
    """Return which values a hyperparameter may have, in words; of "name", the losses there are."""
    if hyperparameter == "name":
        return f"one of {', '.join(LOSSES)}"
    return _RANGES[hyperparameter][0]


def create(name: str, **hyperparameters: Any) -> Loss:
    """The loss `name` of LOSSES with hyperparameters other than its defaults (None: the default).

    Raises UserError for an unknown name, a hyperparameter that this loss does not have, or a value
    out of range.
    """
    if name not in LOSSES:
        raise UserError(f"loss.name={name!r}: allowed are {', '.join(LOSSES)}")
    given = {key: value for key, value in hyperparameters.items() if value is not None}
    allowed = list(signature(LOSSES[name]).parameters)
    for key, value in given.items():
        if key not in allowed:
            raise UserError(f"loss.{key}={value}: {name} has only {', '.join(allowed)}")
        words, test = _RANGES[key]
        if not test(value):
            raise UserError(f"loss.{key}={value}: must be {words}")
    return LOSSES[name](**given)
