"""Numbers of drawn people, against sets in which every person is there as often as drawn."""

import numpy as np
import pytest

from uniface_jax.evaluate.metrics.bootstrap import Resampling
from uniface_jax.evaluate.metrics.roc import roc, tar_at_far
from uniface_jax.inspection import resampling
from uniface_jax.inspection.resampling import Pairs
from uniface_jax.inspection.separation import every_pair, separation

PEOPLE = np.repeat(np.arange(7), [1, 2, 3, 4, 2, 5, 3])


@pytest.fixture(scope="module")
def scored():
    """Features, their pairs, and scores of which many are equal."""
    features = np.random.default_rng(0).normal(size=(len(PEOPLE), 4)) + np.eye(7)[PEOPLE, :4]
    found = every_pair(features, PEOPLE)
    return features, Pairs(found.first, found.second, found.same, PEOPLE), found.score.round(1)


def repeated(pairs, drawn):
    """Rows of the pairs, each as often as the people of it together are there."""
    rows = []
    for row, (one, other) in enumerate(zip(PEOPLE[pairs.first], PEOPLE[pairs.second], strict=True)):
        times = drawn[one] if one == other else drawn[one] * drawn[other]
        rows += [row] * int(times)
    return np.array(rows)


def test_errors_are_those_of_the_drawn_people(scored):
    _, pairs, scores = scored
    drawn = resampling.draws(7, Resampling(6, seed=3))
    found = resampling.one_threshold_errors(scores, pairs, drawn)
    for row, error in zip(drawn, found, strict=True):
        chosen = repeated(pairs, row)
        expected = separation(scores[chosen], pairs.same[chosen])["error"]
        assert error == pytest.approx(expected, abs=1e-12)
    assert len(set(found)) > 1


def test_accuracies_are_those_of_the_drawn_people(scored):
    _, pairs, scores = scored
    right = (scores > 0.5) == pairs.same
    drawn = resampling.draws(7, Resampling(5, seed=4))
    share = np.mean(pairs.same)
    for row, value in zip(drawn, resampling.accuracies(right, pairs, drawn), strict=True):
        chosen = repeated(pairs, row)
        same = pairs.same[chosen]
        kinds = [right[chosen][same].mean(), right[chosen][~same].mean()]
        assert value == pytest.approx(share * kinds[0] + (1 - share) * kinds[1])
    assert resampling.accuracies(right, pairs, drawn)[0] == pytest.approx(right.mean())


def test_tars_begin_with_those_of_the_set(scored):
    features, pairs, _ = scored
    found = resampling.tars(features, PEOPLE, (0.1, 0.3), Resampling(20))
    curve = roc(every_pair(features, PEOPLE).score, pairs.same)
    assert found[0].tolist() == [point.strict.tar for point in tar_at_far(curve, (0.1, 0.3))]
    assert found.shape == (21, 2)
    assert (found[:, 0] <= found[:, 1]).all()


def test_pairs_are_judged_by_the_threshold_of_their_fold():
    distances, same = np.array([0.5, 1.5, 0.5, 1.5]), np.array([True, False, True, False])
    right = resampling.judged_rightly(distances, same, np.array([1.0, 0.2]))
    assert right.tolist() == [True, True, False, True]


def test_runs_are_drawn_too_but_in_the_first_place():
    values = np.arange(3.0)[:, None] * np.ones(200)
    mean = resampling.mean_over_runs(values, seed=0)
    assert mean[0] == 1
    assert 0 < mean[1:].std() < 1
    assert resampling.bounded(mean, 10**6)[0] == 1
    lower, upper = resampling.bounded(mean, 10**6)[1:]
    assert lower < 1 < upper
