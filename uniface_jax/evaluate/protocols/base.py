"""Protocols: the parts and features that they are given, and the results that they return.

A protocol is a function (parts, source, options) -> {set name: SetResult}: `parts` are the files
that the user named, `source` gives features of image sets. It raises UserError naming the file that
is at fault, before anything is embedded where the files themselves show it.
"""

import json
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from uniface_jax.errors import UserError
from uniface_jax.evaluate.arguments import PartNames, Parts
from uniface_jax.evaluate.drawings import Drawing
from uniface_jax.evaluate.features import FeatureSource

SEARCH_READINGS = ("definition", "ijb_evals")


@dataclass(frozen=True)
class Options:
    """A user's choices.

    fars: targets of TAR at FAR in (0, 1]; None takes the protocol's. skip_faults: of identity
    folders, leave out empty ones and folders inside them. search_reading: of IJB's searches in
    tables, a name of SEARCH_READINGS. label_leak: beside MegaFace's refined numbers, those with
    noisy probes replaced by their identity's center.
    """

    fars: Sequence[float] | None = None
    skip_faults: bool = False
    search_reading: str = SEARCH_READINGS[0]
    label_leak: bool = False

    def fars_or(self, default: Sequence[float]) -> Sequence[float]:
        """Return the targets that were asked for, or the protocol's."""
        return default if self.fars is None else self.fars


@dataclass(frozen=True)
class SetResult:
    """A set's metrics, for metrics.json, and its drawings by kind, for the report (drawings.py).

    uncertainty: `intervals` of the metrics, and `thresholds`, which stand in metrics.json beside
    them.
    """

    metrics: Mapping[str, Any]
    drawings: Mapping[str, Drawing] = field(default_factory=dict)
    uncertainty: Mapping[str, Any] = field(default_factory=dict)

    @property
    def record(self) -> dict[str, Any]:
        """Return what metrics.json holds of the set."""
        return {**self.metrics, **self.uncertainty}


Results = dict[str, SetResult]


class ProtocolFunction(typing.Protocol):
    """A function of the files that a user named, which returns metrics.

    Features come from source.features of image sets, which are kept in a cache. A UserError names
    the file that is at fault.
    """

    def __call__(self, parts: Parts, source: FeatureSource, options: Options) -> Results:
        """Return the result of each set, by its name."""


@dataclass(frozen=True)
class Protocol:
    """A protocol: its title, what it takes, its function, and its row in the printed table.

    row: maps the metrics of a set to cells by their heads.
    """

    title: str
    takes: PartNames
    run: ProtocolFunction
    row: Callable[[Mapping[str, Any]], Mapping[str, str]]


def checked(protocol: str, found: Any) -> Results:
    """Return what a protocol from outside gave, once it is known to be results that JSON can hold.

    Raises UserError that names the protocol and the set.
    """
    if not isinstance(found, Mapping) or not found:
        raise UserError(
            f"protocol {protocol}: returned a {type(found).__name__}; expected a SetResult for "
            "each set, by its name"
        )
    for name, result in found.items():
        if not isinstance(result, SetResult):
            raise UserError(
                f"protocol {protocol}: {name} is a {type(result).__name__}; expected a SetResult"
            )
        try:
            json.dumps([result.record, result.drawings], allow_nan=False)
        except (TypeError, ValueError) as e:
            raise UserError(f"protocol {protocol}: {name} holds what JSON cannot: {e}") from e
    return dict(found)


def tar_cells(metrics: Mapping[str, Any], reading: str = "strict") -> dict[str, str]:
    """Return TAR at each FAR for a table, in brackets where the set cannot tell it from FAR 0."""
    mark = "≤" if reading == "strict" else "≈"
    return {
        f"TAR@FAR{mark}{entry['far']:g}": ("{:.2%}" if entry["resolvable"] else "({:.2%})").format(
            entry[reading]["tar"]
        )
        for entry in metrics["tar_at_far"]
    }
