"""One threshold for all pairs and one for each person, against brute force."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.examples import examples
from uniface_jax.errors import UserError
from uniface_jax.evaluate.metrics.roc import roc
from uniface_jax.inspection.separation import (
    best_threshold,
    every_pair,
    person_thresholds,
    separation,
)


def balanced(scores, same, threshold):
    return (np.mean(scores[same] <= threshold) + np.mean(scores[~same] > threshold)) / 2


@examples(60)
@given(st.lists(st.tuples(st.integers(-20, 20), st.booleans()), min_size=2, max_size=30))
def test_best_threshold_is_the_best(pairs):
    scores = np.array([score for score, _ in pairs], float)
    same = np.array([kind for _, kind in pairs])
    if same.all() or not same.any():
        return
    threshold, error = best_threshold(roc(scores, same))
    candidates = [balanced(scores, same, t) for t in np.arange(-21, 21, 0.25)]
    assert error == pytest.approx(min(candidates), abs=1e-12)
    if error < 0.5:
        distinct = np.unique(scores)
        gaps = (distinct[1:] + distinct[:-1]) / 2
        best = [t for t in gaps if balanced(scores, same, t) < error + 1e-12]
        assert best[0] <= threshold <= best[-1]


def test_separable_pairs():
    found = separation(np.array([0.9, 0.7, 0.3, -0.2]), np.array([True, True, False, False]))
    assert found["separable"]
    assert (found["min_same"], found["max_different"]) == (0.7, 0.3)
    assert found["threshold"] == pytest.approx(0.5)
    assert (found["error"], found["equal_error_rate"], found["auc"]) == (0, 0, 1)


def test_overlapping_pairs():
    scores, same = np.array([0.9, 0.2, 0.5, 0.1]), np.array([True, True, False, False])
    found = separation(scores, same)
    assert not found["separable"]
    assert (found["error"], found["auc"]) == (0.25, 0.75)
    assert found["equal_error_rate"] == 0.5


def test_every_pair():
    pairs = every_pair(np.array([[1.0, 0], [0, 2], [3, 3]]), np.array([4, 5, 4]))
    assert list(zip(pairs.first, pairs.second, strict=True)) == [(0, 1), (0, 2), (1, 2)]
    np.testing.assert_allclose(pairs.score, [0, 0.5**0.5, 0.5**0.5])
    assert pairs.same.tolist() == [False, True, False]


def test_each_person_separable_but_not_all_by_one_threshold():
    """Two people of tight clusters near each other, two of loose ones elsewhere."""
    degrees = np.array([0, 2, 10, 12, 100, 125, 170, 195])
    labels = np.repeat(np.arange(4), 2)
    radians = np.deg2rad(degrees)
    pairs = every_pair(np.stack([np.cos(radians), np.sin(radians)], 1), labels)
    common = separation(pairs.score, pairs.same)
    assert not common["separable"]
    thresholds, own, at_common = person_thresholds(pairs, labels, common["threshold"])
    np.testing.assert_array_equal(own, 0)
    expected = [
        (np.cos(np.deg2rad(a)) + np.cos(np.deg2rad(b))) / 2
        for a, b in ((2, 8), (2, 8), (25, 45), (25, 45))
    ]
    np.testing.assert_allclose(thresholds, expected)
    by_hand = [
        balanced(pairs.score[chosen], pairs.same[chosen], common["threshold"])
        for person in range(4)
        for chosen in [(labels[pairs.first] == person) | (labels[pairs.second] == person)]
    ]
    np.testing.assert_allclose(at_common, by_hand)
    assert at_common.max() > 0


def test_a_person_with_one_image():
    pairs = every_pair(np.eye(3), np.array([0, 0, 7]))
    with pytest.raises(UserError, match="person 7 has one image"):
        person_thresholds(pairs, np.array([0, 0, 7]), 0.5)
