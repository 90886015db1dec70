"""Curves as JSON: what a page reads thresholds from."""

import numpy as np
import pytest

from uniface_jax.evaluate.drawings import MAX_POINTS, accept_counts, roc_line
from uniface_jax.evaluate.metrics.roc import roc


@pytest.mark.parametrize("pairs", [7, 50, 5000])
def test_counts_are_those_of_the_scores_at_each_threshold(pairs):
    random = np.random.default_rng(pairs)
    same = np.arange(pairs) % 3 == 0
    scores = np.round(random.normal(same * 0.4, 0.2), 2 if pairs < 100 else 6)
    counts = accept_counts(roc(scores, same))
    assert 1 < len(counts["thresholds"]) <= MAX_POINTS
    for threshold, accepted, wrong in zip(*counts.values(), strict=True):
        reach = scores >= threshold
        assert (accepted, wrong) == (np.sum(reach & same), np.sum(reach & ~same))
    assert counts["same"][-1] == same.sum()
    assert sorted(counts["thresholds"], reverse=True) == counts["thresholds"]


def test_counts_are_of_the_points_of_the_roc():
    scores, same = np.array([0.9, 0.8, 0.4, 0.1]), np.array([False, True, True, False])
    curve = roc(scores, same)
    assert roc_line(curve)["tar"] == [0.0, 1.0, 1.0]  # the first accepts nothing
    assert accept_counts(curve) == {
        "thresholds": [0.4, 0.1], "same": [2, 2], "different": [1, 2]
    }  # fmt: skip
