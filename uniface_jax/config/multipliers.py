"""Multipliers of the learning rate, by patterns of parameters' names: slower layers, frozen ones.

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

FORM = "PATTERN=FACTOR, by commas: a factor >= 0 for each pattern of names"


class Multiplier(NamedTuple):
    """Factor of the learning rate of the parameters whose names fit `pattern` (fnmatch's)."""

    pattern: str
    factor: float


def parse(text: str) -> tuple[Multiplier, ...]:
    """Return what config.optim.multipliers says; UserError names the part that is not of FORM.

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
        if not pattern or not 0 <= value < math.inf:
            raise UserError(f"config.optim.multipliers: {part!r} is not {FORM}")
        found.append(Multiplier(pattern, value))
    return tuple(found)


def factors(multipliers: tuple[Multiplier, ...], weights: Tree) -> Tree:
    """Return a tree of floats of the weights' form: 1, or the factor of the last pattern that fits.

    weights: state.Weights, of arrays or of their shapes.
    """

    def factor(path: Path, _: Any) -> float:
        fitting = [m.factor for m in multipliers if fnmatchcase(name_of(path), m.pattern)]
        return fitting[-1] if fitting else 1.0

    return jax.tree_util.tree_map_with_path(factor, weights)


def check_fit(multipliers: tuple[Multiplier, ...], weights: Tree) -> None:
    """Raise UserError for a pattern that fits no parameter of `weights`."""
    names = [name_of(path) for path, _ in jax.tree_util.tree_leaves_with_path(weights)]
    for pattern, _ in multipliers:
        if not any(fnmatchcase(name, pattern) for name in names):
            some = [*names[:_NAMES_SHOWN], "…", *names[-2:]] if len(names) > _NAMES_SHOWN else names
            raise UserError(
                f"config.optim.multipliers: {pattern!r} fits no parameter; there are "
                f"{', '.join(some)}"
            )


def name_of(path: Path) -> str:
    """Return a parameter's name, the keys on its path with dots between."""
    return ".".join(str(getattr(key, "name", getattr(key, "key", key))) for key in path)
