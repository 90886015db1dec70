"""Intervals of rates: exact binomial ones, and of what resamples found.

Errors that are few say little about the next ones: under FEW_ERRORS of them a bootstrap's interval
is too narrow, and the exact one of Clopper and Pearson takes its place, or its part.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import special

LEVEL = 0.95
FEW_ERRORS = 10
_CLUSTER = 3.0  # errors of one person that are taken to come at once, where few are known
BOOTSTRAP, EXACT = "bootstrap", "exact_binomial"


@dataclass(frozen=True)
class Interval:
    """Bounds between which a number lies with probability LEVEL, and how they were found.

    method: BOOTSTRAP or EXACT.
    """

    lower: float
    upper: float
    method: str

    def summary(self) -> dict[str, Any]:
        """Return `lower`, `upper` and `method`, for JSON."""
        return {"lower": self.lower, "upper": self.upper, "method": self.method}


def exact_binomial(hits: float, trials: float, level: float = LEVEL) -> tuple[float, float]:
    """Return the bounds of Clopper and Pearson of the rate that gave `hits` of `trials`.

    Their coverage is at least `level` whatever the rate is, for trials that do not depend on each
    other.

    >>> lower, upper = exact_binomial(0, 100)
    >>> lower, round(upper, 4)
    (0.0, 0.0362)
    """
    if not 0 <= hits <= trials or trials <= 0:
        raise ValueError(f"{hits} hits of {trials}; expected 0 to all of some")
    tail = (1 - level) / 2
    lower = special.betaincinv(hits, trials - hits + 1, tail) if hits else 0.0
    upper = special.betaincinv(hits + 1, trials - hits, 1 - tail) if hits < trials else 1.0
    return float(lower), float(upper)


def resampled_bounds(
    replicates: np.ndarray, units: int, level: float = LEVEL
) -> tuple[float, float]:
    """Return the percentiles between which resamples of `units` units say that a number lies.

    They are a little further out than those of `level` itself where units are few (Hesterberg's
    expanded percentiles): a sample of n varies less than what it was drawn of, by (n - 1) / n, and
    its own spread is not known exactly, for which stands Student's t. nan of resamples in which the
    number has no value is left out; without any other the bounds are nan.

    >>> lower, upper = resampled_bounds(np.arange(1001) / 1000, units=10**6)
    >>> round(lower, 3), round(upper, 3)
    (0.025, 0.975)
    """
    known = replicates[~np.isnan(replicates)]
    if not len(known):
        return float("nan"), float("nan")
    tail = (1 - level) / 2
    if units > 1:
        quantile = special.stdtrit(units - 1, tail) * np.sqrt(units / (units - 1))
        tail = float(special.ndtr(quantile))
    else:
        tail = 0.0
    lower, upper = np.quantile(known, [tail, 1 - tail])
    return float(lower), float(upper)


def effect_of_units(hits: int, trials: int, replicates: np.ndarray) -> float:
    """Return how many times as much a rate varies as a binomial one: how many errors come at once.

    At least 1. replicates: the rate of resamples [B] of units that hold several trials each.

    >>> effect_of_units(1, 2, np.array([0.0, 0.5, 1.0, 0.5]))
    1.0
    """
    rate = hits / trials
    if not 0 < rate < 1 or np.isnan(replicates).all():
        return 1.0
    return max(1.0, float(np.nanvar(replicates)) * trials / (rate * (1 - rate)))


def rate_interval(
    hits: int, trials: int, replicates: np.ndarray, units: int, effect: float | None = None
) -> Interval:
    """Return the interval of a rate of `hits` among `trials`, from its resamples [B].

    Under FEW_ERRORS hits or misses it is the exact binomial one, and reaches as far as the
    resamples do where they reach further: a rate at a threshold depends on that threshold's own
    error too. Errors that come `effect` at a time count once, and so do trials (Korn and Graubard);
    few errors do not show whether they do: of people, of whom `effect` is given, up to three
    are taken to. None: each trial is by itself.

    >>> rate_interval(100, 100, np.ones(1000), 100)  # doctest: +ELLIPSIS
    Interval(lower=0.963783..., upper=1.0, method='exact_binomial')
    """
    estimate = hits / trials
    lower, upper = (
        estimate if np.isnan(bound) else bound for bound in resampled_bounds(replicates, units)
    )
    lower, upper = min(lower, estimate), max(upper, estimate)
    if min(hits, trials - hits) >= FEW_ERRORS * (effect or 1.0):
        return Interval(lower, upper, BOOTSTRAP)
    at_once = 1.0 if effect is None else max(effect, min(_CLUSTER, trials / units))
    exact_lower, exact_upper = exact_binomial(hits / at_once, trials / at_once)
    return Interval(min(lower, exact_lower), max(upper, exact_upper), EXACT)


def quantile_ranks(total: int, rate: float, level: float = LEVEL) -> tuple[int, int]:
    """Return how many of `total` scores may lie above their quantile of `rate`: fewest and most.

    By the binomial distribution, which holds whatever the scores' own is: the threshold that a
    share of `rate` reaches lies, with probability `level`, between the scores of these ranks.

    >>> quantile_ranks(10_000, 1e-3)
    (4, 17)
    """
    tail = (1 - level) / 2
    counts = np.arange(int(total * rate + 10 * np.sqrt(total * rate) + 20))
    counts = counts[counts <= total]
    below = special.bdtr(counts, total, rate)
    fewest = int(np.searchsorted(below, tail, side="right"))
    most = min(int(np.searchsorted(below, 1 - tail, side="left")), total)
    return fewest, most
