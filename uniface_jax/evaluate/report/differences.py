"""Differences of models on the same data, by the same resamples of both: a paired bootstrap."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from uniface_jax.evaluate.metrics.intervals import resampled_bounds
from uniface_jax.evaluate.report.results import Run

KINDS = ("resamples", "resamples_open_set")
EXPLAINED = (
    "Both models in the same resamples. p: twice the share of these that see no difference, or the "
    "other one."
)
_DRAWN = ("units", "count", "resamples", "seed")


class Tested(NamedTuple):
    """Difference of one number.

    difference: the second model's less the first's. lower, upper: its 95 % interval. p: the share
    of resamples that see it at 0 or on the other side, twice, at least 2 of all and one. drawn:
    what was drawn again, and how many of it there are.
    """

    number: str
    difference: float
    lower: float
    upper: float
    p: float
    drawn: str


class Difference(NamedTuple):
    """Difference of two models on one set."""

    protocol: str
    set: str
    first: str
    second: str
    tested: Tested


def differences(runs: Sequence[Run]) -> list[Difference]:
    """Return the differences of each later run from the first, of all sets that both have.

    A set counts as the same where its data has one digest, and where the same was drawn again, with
    one seed.
    """
    found = []
    for second in runs[1:]:
        for protocol, name in _common(runs[0], second):
            for kind in KINDS:
                drawn = [
                    run.drawings[protocol].get(name, {}).get(kind) for run in (runs[0], second)
                ]
                if None not in drawn:
                    place = (protocol, name, runs[0].name, second.name)
                    found += [Difference(*place, of) for of in _of_drawn(*drawn)]
    return found


def _common(first: Run, second: Run) -> Iterator[tuple[str, str]]:
    """Yield protocol and set that two runs have in common, on the same data."""
    for protocol, found in first.metrics["protocols"].items():
        others = second.metrics["protocols"].get(protocol, {}).get("sets", {})
        for name, metrics in found["sets"].items():
            digests = _digests(metrics)
            if digests and _digests(others.get(name, {})) == digests:
                yield protocol, name


def _digests(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Return the digests of all data that a set is made of, by their keys."""
    found = {key: value for key, value in metrics.items() if key.endswith("sha256")}
    plain = metrics.get("plain")  # of masked faces against plain ones
    return found | ({"plain": plain.get("sha256")} if isinstance(plain, dict) else {})


def _of_drawn(first: Mapping[str, Any], second: Mapping[str, Any]) -> Iterator[Tested]:
    """Yield the differences of two drawings.resamples."""
    if any(first[key] != second[key] for key in _DRAWN):
        return
    for number, values in first["values"].items():
        if number not in second["values"]:
            continue
        estimate = second["estimates"][number] - first["estimates"][number]
        resamples = np.array(second["values"][number], float) - np.array(values, float)
        known = resamples[~np.isnan(resamples)]
        if not len(known):
            continue
        lower, upper = resampled_bounds(known, first["count"])
        yield Tested(
            number,
            float(estimate),
            min(lower, estimate),
            max(upper, estimate),
            _p_value(known),
            f"{first['count']:,} {first['units']}",
        )


def _p_value(differences: np.ndarray) -> float:
    """Return how often resamples [B] see no difference, or the other one, twice; at most 1.

    >>> _p_value(np.array([0.1] * 19)), _p_value(np.zeros(9))
    (0.1, 1.0)
    """
    sides = (np.count_nonzero(differences <= 0), np.count_nonzero(differences >= 0))
    return float(min(1.0, 2 * (min(sides) + 1) / (len(differences) + 1)))


def table(found: Sequence[Difference]) -> tuple[list[str], list[list[str]]]:
    """Return heads and rows of a table of differences, in percent."""
    heads = ["number", "set", "models", "difference", "95 % interval", "p", "drawn"]
    return heads, [
        [
            of.tested.number,
            of.set,
            f"{of.second} - {of.first}",
            f"{of.tested.difference * 100:+.2f}%",
            f"{of.tested.lower * 100:+.2f} … {of.tested.upper * 100:+.2f}%",
            f"{of.tested.p:.3f}",
            of.tested.drawn,
        ]
        for of in found
    ]
