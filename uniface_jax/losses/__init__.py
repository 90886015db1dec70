"""Losses by name; register_loss adds one from outside.

Everything else, streaming over blocks of classes, sharding and sampling, is the head's business
(head/) and works for every entry.
"""

from collections.abc import Callable, Mapping
from inspect import signature
from typing import Any, Protocol, TypeVar

from uniface_jax.errors import UserError
from uniface_jax.losses import adaptive, additive, by_norm, elastic, expectation, softmax
from uniface_jax.losses.base import GRADIENTS, Elementwise, Loss
from uniface_jax.registry import Range, Registry, above, at_least, one_of

__all__ = ["LOSSES", "Elementwise", "Loss", "LossFactory", "create", "register_loss"]

_MARGIN = Range("from 0 to below 1.5", lambda value: 0 <= value < 1.5)
_BELOW_ONE = Range("above 0 and below 1", lambda value: 0 < value < 1)
_SWITCH = Range("True or False", lambda value: isinstance(value, bool))

# The ranges of the hyperparameters of the losses that come with this package.
_RANGES: Mapping[str, Range] = {
    "scale": above(0),
    "margin": _MARGIN,
    "m1": at_least(1),
    "m2": _MARGIN,
    "m3": _MARGIN,
    "negative_weight": above(0),
    "loss_weight": above(0),
    "balance": _BELOW_ONE,
    "exponent": at_least(1),
    "concentration": Range("above 0, at most 1", lambda value: 0 < value <= 1),
    "gradient": one_of(*GRADIENTS),
    "deviation": above(0),
    "as_published": _SWITCH,
    "low_norm": above(0),
    "high_norm": above(0),
    "low_margin": _MARGIN,
    "high_margin": _MARGIN,
    "norm_weight": at_least(0),
    "expectation_margin": _MARGIN,
    "expectation_after": _BELOW_ONE,
    "all_classes_after": _BELOW_ONE,
    "interclass_filtering": Range("from 0 (off) to below 1", lambda value: 0 <= value < 1),
}


# Keys beside those of a loss: of the second loss that `with_samples` adds to any of them.
SAMPLE_KEYS = ("with_samples", "sample_scale", "sample_margin", "sample_after_epochs")


class LossFactory(Protocol):
    """Takes hyperparameters by keyword, each with a default, and returns the Loss."""

    def __call__(self, *args: Any, **kwargs: Any) -> Loss:
        """Return the loss with these hyperparameters bound."""


Factory = TypeVar("Factory", bound=LossFactory)

LOSSES: Registry[LossFactory] = Registry("loss", "loss", reserved=("name", *_RANGES, *SAMPLE_KEYS))
_BUILTIN: Mapping[str, LossFactory] = {
    "uce": additive.uce,
    "bce": additive.bce,
    "nsl": softmax.nsl,
    "cosface": softmax.cosface,
    "arcface": softmax.arcface,
    "combined": softmax.combined,
    "sphereface": softmax.sphereface,
    "sphereface_r": softmax.sphereface_r,
    "sphereface_r_v0": softmax.sphereface_r_v0,
    "sphereface_r_v2": softmax.sphereface_r_v2,
    "sphereface2": additive.sphereface2,
    "adaface": adaptive.adaface,
    "curricularface": adaptive.curricularface,
    "magface": by_norm.magface,
    "magface_hard": by_norm.magface_hard,
    "pco": expectation.pco,
    "elastic_arc": elastic.elastic_arc,
    "elastic_cos": elastic.elastic_cos,
    "elastic_arc_plus": elastic.elastic_arc_plus,
    "elastic_cos_plus": elastic.elastic_cos_plus,
}
for _name, _function in _BUILTIN.items():
    _own = {key: _RANGES[key] for key in signature(_function).parameters}
    LOSSES.add(_name, _function, _own, builtin=True)


def register_loss(name: str, **ranges: Range) -> Callable[[Factory], Factory]:
    """Return a decorator that registers a function of hyperparameters -> Loss as the loss `name`.

    It is chosen by --config.loss.name=NAME, and its hyperparameters are the config's keys
    loss.NAME.KEY. It may be given in a module of config.imports, which every command imports.

    Args:
        name: Lower-case letters, digits and underscores.
        **ranges: The Range of each hyperparameter, by its name in the function's signature.

    Raises:
        UserError: At the decorated function, for a name that is taken, or a hyperparameter without
            a default or range.

    >>> from uniface_jax import Range, register_loss
    >>> from uniface_jax.losses import Loss, create
    >>> @register_loss("doc_softmax", temperature=Range("> 0", lambda value: value > 0))
    ... def doc_softmax(temperature: float = 0.05) -> Loss:
    ...     scale = 1 / temperature
    ...     logit = lambda cos, b: scale * cos
    ...     return Loss("softmax", positive=logit, negative=logit, scale=scale)
    >>> create("doc_softmax", temperature=0.1).scale
    10.0
    """
    return LOSSES.decorator(name, ranges)


def allowed(hyperparameter: str) -> str:
    """Return which values a hyperparameter may have, in words; of "name", the losses there are."""
    if hyperparameter == "name":
        return f"one of {', '.join(LOSSES)}"
    return _RANGES[hyperparameter].words


def checked(name: str, hyperparameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return the hyperparameters that are given (not None); raises UserError as `create` does."""
    entry = LOSSES.entry(name, f"loss.name={name!r}")
    prefix = "loss." if entry.builtin else f"loss.{name}."
    return entry.checked(hyperparameters, prefix)


def create(name: str, **hyperparameters: Any) -> Loss:
    """Return the loss `name` with hyperparameters other than its defaults (None: the default).

    Args:
        name: One of LOSSES.
        **hyperparameters: Those of the loss, by their config keys.

    Returns:
        The element-wise functions of cosines, with the hyperparameters bound.

    Raises:
        UserError: For an unknown name, a hyperparameter that this loss does not have, or a value
            out of range.

    >>> from uniface_jax import losses
    >>> losses.create("cosface", scale=64.0).scale
    64.0
    """
    given = checked(name, hyperparameters)
    loss = LOSSES[name](**given)
    if not isinstance(loss, Loss):
        raise UserError(f"loss.name={name!r}: made a {type(loss).__name__}; expected a losses.Loss")
    return loss
