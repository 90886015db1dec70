"""Intervals of rates against sums of the binomial distribution."""

from fractions import Fraction
from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from uniface_jax.evaluate.metrics.intervals import (
    BOOTSTRAP,
    EXACT,
    effect_of_units,
    exact_binomial,
    quantile_ranks,
    rate_interval,
    resampled_bounds,
)


def at_most(count, trials, rate):
    """The chance of at most `count` of `trials`, as a sum."""
    rate = Fraction(rate)
    terms = (comb(trials, k) * rate**k * (1 - rate) ** (trials - k) for k in range(count + 1))
    return float(sum(terms))


@given(st.integers(1, 40).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_exact_bounds_leave_a_fortieth_on_either_side(counts):
    hits, trials = counts
    lower, upper = exact_binomial(hits, trials)
    assert 0 <= lower <= hits / trials <= upper <= 1
    if hits:  # as many hits or more are just not likelier than that
        assert 1 - at_most(hits - 1, trials, lower) == pytest.approx(0.025)
    if hits < trials:
        assert at_most(hits, trials, upper) == pytest.approx(0.025)


@given(st.integers(1, 60), st.floats(0.001, 0.9))
def test_ranks_hold_the_count_above_a_quantile(total, rate):
    fewest, most = quantile_ranks(total, rate)
    assert fewest == 0 or at_most(fewest - 1, total, rate) <= 0.025
    assert at_most(fewest, total, rate) > 0.025
    assert at_most(most, total, rate) >= 0.975
    assert most == 0 or at_most(most - 1, total, rate) < 0.975


def test_few_errors_make_the_exact_interval_and_what_reaches_further():
    narrow, wide = np.full(1000, 0.995), np.linspace(0.9, 1, 1000)
    exact = exact_binomial(995, 1000)
    found = rate_interval(995, 1000, narrow, 500)
    assert (found.lower, found.upper, found.method) == (*exact, EXACT)
    found = rate_interval(995, 1000, wide, 500)
    assert (found.upper, found.method) == (pytest.approx(exact[1], abs=2e-3), EXACT)
    assert found.lower == pytest.approx(0.9025, abs=1e-3)
    found = rate_interval(990, 1000, wide, 500)
    assert (found.lower, found.method) == (pytest.approx(0.9025, abs=1e-3), BOOTSTRAP)


def test_few_units_widen_the_bounds_and_what_has_no_value_is_left_out():
    replicates = np.append(np.linspace(0, 1, 1001), np.nan)
    assert resampled_bounds(replicates, 10)[0] < resampled_bounds(replicates, 10**5)[0] < 0.026
    assert np.isnan(resampled_bounds(np.array([np.nan]), 5)).all()
    found = rate_interval(1, 4, np.array([np.nan]), 1)
    assert (found.lower, found.upper) == exact_binomial(1, 4)


def test_bounds_of_ten_units_are_those_of_students_t():
    """Nine degrees of freedom have -2.26216 at a fortieth; times the root of 10/9, -2.38453."""
    lower, upper = resampled_bounds(np.linspace(0, 1, 10_001), 10)
    assert lower == pytest.approx(0.008551, abs=1e-5)
    assert upper == pytest.approx(1 - lower)
    assert resampled_bounds(np.linspace(0, 1, 10_001), 1) == (0, 1)


def test_units_of_several_trials_vary_more_than_trials():
    spread = np.array([0, 0.5, np.nan])  # whose variance is 1/16, of one trial of four 3/64
    assert effect_of_units(1, 4, spread) == pytest.approx(4 / 3)
    assert effect_of_units(3, 4, 1 - spread) == pytest.approx(4 / 3)
    assert effect_of_units(1, 4, spread / 2) == 1  # never less than one
    assert effect_of_units(0, 4, spread) == effect_of_units(4, 4, spread) == 1
    assert effect_of_units(1, 4, np.full(3, np.nan)) == 1


def test_few_errors_of_people_are_taken_to_come_three_at_a_time():
    found = rate_interval(900, 900, np.ones(1000), 150, effect=1.0)
    assert (found.lower, found.method) == (exact_binomial(300, 300)[0], EXACT)
    assert rate_interval(150, 150, np.ones(1000), 150, effect=1.0).lower == pytest.approx(
        exact_binomial(150, 150)[0]
    )
    found = rate_interval(880, 900, np.full(1000, 880 / 900), 150, effect=4.0)
    assert found.lower == pytest.approx(exact_binomial(220, 225)[0])
