"""Facts of a recipe, as data: its training set, hardware, and the result to expect."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

from ml_collections import ConfigDict

from uniface_jax.data.sources.known_sets import KnownSet
from uniface_jax.errors import UserError

UNKNOWN = "unknown"


@dataclass(frozen=True)
class Hardware:
    """Devices that a recipe is for, and whether it ran on them or is estimated to.

    minutes: how long a run takes at most, where it was measured.
    """

    devices: int
    kind: str
    measured: bool
    minutes: float | None = None

    def __str__(self) -> str:
        """Return "8 x GPU (estimated)"."""
        time = f", {self.minutes:g} minutes" if self.minutes is not None else ""
        origin = "measured" if self.measured else "estimated"
        return f"{self.devices} x {self.kind}{time} ({origin})"


@dataclass(frozen=True)
class Expected:
    """Result to expect, in percent by the name of the metric.

    measured: by this project; else `source` reports it, and it is a target. gradient: the value of
    loss.gradient that the numbers came from, UNKNOWN where the code behind them is not public, ""
    for losses that have no such choice.
    """

    percent: Mapping[str, float] = field(default_factory=dict)
    measured: bool = False
    gradient: str = ""
    source: str = "paper"


@dataclass(frozen=True)
class RecipeFacts:
    """One variant of a recipe. settings: the config keys that make it, by their dotted paths."""

    title: str
    network: str
    data: KnownSet
    hardware: Hardware
    expected: Expected
    settings: Mapping[str, Any] = field(default_factory=dict)


def choose(variants: Mapping[str, RecipeFacts], variant: str) -> RecipeFacts:
    """Return the facts of `variant`; UserError, which lists them all, for one that is not there."""
    if variant not in variants:
        problem = f"no variant {variant}" if variant else "names no variant"
        without = ", or none" if "" in variants else ""
        raise UserError(f"{problem}; there are {', '.join(filter(None, variants))}{without}")
    return variants[variant]


def apply(config: ConfigDict, facts: RecipeFacts) -> ConfigDict:
    """Return `config`, in which the variant's settings are made."""
    config.update_from_flattened_dict(facts.settings)
    return config


def facts_of(recipe: ModuleType, variant: str | None) -> RecipeFacts | None:
    """Return what a recipe's module says of a variant (None: of its default); None for nothing."""
    variants: Mapping[str, RecipeFacts] = getattr(recipe, "VARIANTS", {})
    return variants.get(getattr(recipe, "DEFAULT", "") if variant is None else variant)
