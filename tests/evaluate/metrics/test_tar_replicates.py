"""Resamples of TAR at FAR against pairs that are really repeated."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.examples import examples
from uniface_jax.evaluate.metrics import tar_replicates as module
from uniface_jax.evaluate.metrics.bootstrap import (
    PEOPLE,
    Resampling,
    Units,
    joined_people,
    weight_blocks,
)
from uniface_jax.evaluate.metrics.pair_intervals import scores_by_pairs, scores_by_people
from uniface_jax.evaluate.metrics.pair_totals import CrossedTotals, ListedTotals
from uniface_jax.evaluate.metrics.tar_replicates import tar_replicates

FARS = (0.02, 0.1, 1 / 3, 0.75, 1.0)
FEW = Resampling(resamples=12, seed=3)


def by_repeating(scores, same, times):
    """Strict and nearest TAR, and the false accepts' lowest score, of pairs repeated `times`."""
    repeated, kinds = np.repeat(scores, times), np.repeat(same, times)
    if kinds.all() or not kinds.any():
        return None
    points = [
        (np.mean(repeated[~kinds] >= t), np.mean(repeated[kinds] >= t), t)
        for t in [np.inf, *sorted(set(repeated), reverse=True)]
    ]
    strict = [max(point[1] for point in points if point[0] <= far + 1e-12) for far in FARS]
    lowest = [
        min((t for f, _, t in points if f <= far + 1e-12 and t in repeated[~kinds]), default=None)
        for far in FARS
    ]
    # The later point where two are as near.
    nearest = [max(points, key=lambda p: (-round(abs(p[0] - far), 12), p[0], p[1])) for far in FARS]
    return strict, [point[1] for point in nearest], lowest


def check(found, scores, same, times_of):
    """Each resample is what `times_of` (how often each pair is in it) gives by repeating."""
    checked = 0
    for number, times in enumerate(times_of):
        expected = by_repeating(scores, same, times)
        if expected is None:
            continue
        checked += 1
        np.testing.assert_allclose(found.strict[number], expected[0], atol=1e-12)
        np.testing.assert_allclose(found.nearest[number], expected[1], atol=1e-12)
        for column, lowest in enumerate(expected[2]):
            assert lowest is None or found.threshold[number, column] == lowest
    return checked


def pairs_of(seed, ties):
    rng = np.random.default_rng(seed)
    count = int(rng.integers(6, 30))
    same = np.arange(count) % 3 != 0
    scores = rng.normal(same * 0.8, 1)
    return np.round(scores, 0 if ties else 12), same


@given(st.integers(0, 10_000), st.booleans())
@examples(100)
def test_pairs_drawn_again_are_pairs_repeated(seed, ties):
    scores, same = pairs_of(seed, ties)
    of_units, unit = scores_by_pairs(scores, same)
    (weights,) = weight_blocks(of_units.units, FEW)
    found = tar_replicates(of_units, FARS, FEW)
    assert check(found, scores, same, weights[unit].astype(int).T)


@given(st.integers(0, 10_000), st.booleans())
@examples(100)
def test_people_drawn_again_are_their_pairs_repeated(seed, ties):
    rng = np.random.default_rng(seed)
    people = rng.integers(0, 5, 9)
    first, second = np.triu_indices(len(people), 1)
    same = people[first] == people[second]
    if same.all() or not same.any():
        return
    scores = np.round(rng.normal(same * 0.8, 1), 0 if ties else 12)
    first, second = (np.unique(people, return_inverse=True)[1][side] for side in (first, second))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_spread", lambda scores, accepted: (1.0, 1.0))
        of_units = scores_by_people(scores, same, first, second)
        found = tar_replicates(of_units, FARS, FEW)
    (weights,) = weight_blocks(of_units.units, FEW)
    times = np.where(same, weights[first].T, weights[first].T * weights[second].T)
    check(found, scores, same, times.astype(int))


@given(st.integers(0, 10_000))
@examples(60)
def test_totals_of_a_list_and_of_a_crossing_agree(seed):
    rng = np.random.default_rng(seed)
    sides = [rng.integers(0, 4, int(rng.integers(2, 9))) for _ in range(2)]
    weights = rng.integers(0, 4, (4, 3)).astype(np.float32)
    for within in (True, False):
        if within:
            first, second = (sides[0][row] for row in np.triu_indices(len(sides[0]), 1))
            crossed = CrossedTotals(np.bincount(sides[0], minlength=4))
        else:
            first, second = (side.ravel() for side in np.meshgrid(*sides))
            crossed = CrossedTotals(*(np.bincount(side, minlength=4) for side in sides))
        different = first != second
        if not different.any():
            continue
        listed = ListedTotals(first[different], second[different], 4)
        assert crossed.pairs == listed.pairs == different.sum()
        expected = [
            sum(w[a] * w[b] for a, b in zip(first[different], second[different], strict=True))
            for w in weights.T
        ]
        for totals in (listed, crossed):
            np.testing.assert_allclose(totals.weighted(weights), expected)
        np.testing.assert_allclose(crossed.of_unit(), listed.of_unit())
        assert crossed.sum_of_squares() == pytest.approx(listed.sum_of_squares())
        a, b = np.triu_indices(4, 1)
        np.testing.assert_allclose(crossed.between(a, b), listed.between(a, b))


def test_a_pair_of_one_person_called_different_counts_with_that_person():
    totals = ListedTotals(np.array([0, 1, 0]), np.array([0, 0, 1]), 2)
    weights = np.array([[3], [2]], np.float32)
    assert totals.weighted(weights).tolist() == [3 + 2 * 3 * 2]
    assert totals.between(np.array([0, 1]), np.array([0, 0])).tolist() == [1, 2]


def test_draws_do_not_depend_on_how_many_are_held_at_a_time(monkeypatch):
    units = Units(PEOPLE, (7, 3))
    (whole,) = weight_blocks(units, Resampling(9, seed=1))
    monkeypatch.setattr("uniface_jax.evaluate.metrics.bootstrap._BLOCK_WEIGHTS", 20)
    parts = list(weight_blocks(units, Resampling(9, seed=1)))
    assert len(parts) == 5
    np.testing.assert_array_equal(np.concatenate(parts, axis=1), whole)
    assert (whole[:7].sum(axis=0) == 7).all()
    assert (whole[7:].sum(axis=0) == 3).all()


def test_templates_are_joined_along_chains_of_same_pairs():
    people = joined_people(np.array([0, 4, 2]), np.array([4, 2, 5]), 7)
    assert [people[i] == people[0] for i in range(7)] == [i in (0, 2, 4, 5) for i in range(7)]
    assert len(set(people)) == 4


def test_chance_of_single_pairs_is_not_counted_thrice():
    """Where all chance is each pair's own, FAR spreads little more than a binomial does."""
    rng = np.random.default_rng(0)
    people = 60
    first, second = np.triu_indices(people, 1)
    same = np.arange(len(first)) < 50
    of_units = scores_by_people(rng.standard_normal(len(first)), same, first, second)
    far = tar_replicates(of_units, [0.05]).far[:, 0]
    expected = np.sqrt(0.05 * 0.95 / of_units.totals.pairs)
    assert 1 < far.std() / expected < 1.6  # at most the root of 2, but for its own chance
