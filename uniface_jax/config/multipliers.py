"""Numbers by patterns of parameters' names: multipliers of the learning rate, weight decays.

A parameter is named by its place: "network.layer1_0.conv1.kernel", "prototypes", "bias".
"""

import math
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

import jax

from uniface_jax.errors import UserError

Tree = Any
Path = tuple[Any, ...]  # of a leaf in a tree, as jax.tree_util has it
_NAMES_SHOWN = 6

_FORMS = {
    "optim.multipliers": "PATTERN=FACTOR, by commas: a factor >= 0 for each pattern of names",
    "optim.decays": "PATTERN=DECAY, by commas: from 0 to below 1 for each pattern of names",
}
_BELOW = {"optim.multipliers": math.inf, "optim.decays": 1.0}  # as optim.weight_decay
KEYS = tuple(_FORMS)


class Multiplier(NamedTuple):
    """Number for the parameters whose names fit `pattern` (fnmatch's): as a rule a factor."""

    pattern: str
    factor: float


def parse(text: str, key: str = KEYS[0]) -> tuple[Multiplier, ...]:
    """Return what a key of KEYS says; UserError names the part that is not of its form.

    >>> parse("network.*=0, network.fc5.*=0.1")
    (Multiplier(pattern='network.*', factor=0.0), Multiplier(pattern='network.fc5.*', factor=0.1))
    """
    found = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        pattern, _, factor = part.rpartition("=")
        try:
            value = float(factor)
        except ValueError:
            value = math.nan
        if not pattern or not 0 <= value < _BELOW[key]:
            raise UserError(f"config.{key}: {part!r} is not {form(key)}")
        found.append(Multiplier(pattern, value))
    return tuple(found)


def form(key: str) -> str:
    """Return in words what the value of a key of KEYS is."""
    return _FORMS[key]


def factors(multipliers: tuple[Multiplier, ...], weights: Tree) -> Tree:
    """Return a tree of floats of the weights' form: 1, or the factor of the last pattern that fits.

    weights: state.Weights, of arrays or of their shapes.
    """
    return by_name(multipliers, jax.tree.map(lambda _: 1.0, weights))


def by_name(numbers: tuple[Multiplier, ...], default: Tree) -> Tree:
    """Return a tree of floats with the number of the last pattern that fits in place of another."""

    def number(path: Path, other: float) -> float:
        fitting = [m.factor for m in numbers if fnmatchcase(name_of(path), m.pattern)]
        return fitting[-1] if fitting else other

    return jax.tree_util.tree_map_with_path(number, default)


def check_fit(multipliers: tuple[Multiplier, ...], weights: Tree, key: str = KEYS[0]) -> None:
    """Raise UserError for a pattern of a key of KEYS that fits no parameter of `weights`."""
    names = [name_of(path) for path, _ in jax.tree_util.tree_leaves_with_path(weights)]
    for pattern, _ in multipliers:
        if not any(fnmatchcase(name, pattern) for name in names):
            some = [*names[:_NAMES_SHOWN], "…", *names[-2:]] if len(names) > _NAMES_SHOWN else names
            raise UserError(
                f"config.{key}: {pattern!r} fits no parameter; there are {', '.join(some)}"
            )


def name_of(path: Path) -> str:
    """Return a parameter's name, the keys on its path with dots between."""
    return ".".join(str(getattr(key, "name", getattr(key, "key", key))) for key in path)
