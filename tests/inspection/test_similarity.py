"""Similarities and dominance against the whole matrix, written plainly."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.examples import examples
from uniface_jax.errors import UserError
from uniface_jax.inspection import similarity
from uniface_jax.inspection.similarity import EDGES, dominance, similarities


def random_problem(seed, samples, classes, closeness=1.0):
    rng = np.random.default_rng(seed)
    prototypes = rng.normal(size=(classes, 6))
    labels = rng.integers(0, classes, samples)
    features = closeness * prototypes[labels] + rng.normal(size=(samples, 6))
    return 3 * features, labels, prototypes


def matrix(features, labels, prototypes):
    cos = features @ prototypes.T
    cos /= np.linalg.norm(features, axis=1)[:, None] * np.linalg.norm(prototypes, axis=1)
    return cos, labels[:, None] == np.arange(len(prototypes))


@examples(30)
@given(st.integers(0, 1000), st.integers(1, 40), st.integers(2, 15), st.integers(1, 16))
def test_equals_the_whole_matrix(seed, samples, classes, block):
    problem = random_problem(seed, samples, classes)
    cos, own = matrix(*problem)
    before, similarity._BLOCK_CLASSES = similarity._BLOCK_CLASSES, block
    try:
        found = similarities(*problem, threshold=0.2)
    finally:
        similarity._BLOCK_CLASSES = before
    close = dict(rtol=0, atol=1e-12)
    np.testing.assert_allclose(found.positive, cos[own], **close)
    np.testing.assert_allclose(found.row_negative, np.where(own, -2, cos).max(1), **close)
    with_samples = own.any(0)
    lowest = np.where(own, cos, 2).min(0)
    np.testing.assert_allclose(found.column_positive[with_samples], lowest[with_samples], **close)
    assert np.isinf(found.column_positive[~with_samples]).all()
    others = ~own.all(0)
    highest = np.where(own, -2, cos).max(0)
    np.testing.assert_allclose(found.column_negative[others], highest[others], **close)
    assert found.negatives == samples * (classes - 1)
    np.testing.assert_array_equal(found.counts, np.histogram(cos[~own], EDGES)[0])
    assert found.negatives_reaching == np.sum(cos[~own] >= cos[own].min())
    assert found.negatives_above == np.sum(cos[~own] > 0.2)

    facts = dominance(found)
    rows = [cos[i, own[i]].item() > cos[i, ~own[i]].max() for i in range(samples)]
    assert facts["rows"] == np.mean(rows)
    columns = [
        lowest[j] > (cos[~own[:, j], j].max() if others[j] else -2)
        for j in np.flatnonzero(with_samples)
    ]
    assert facts["columns"] == np.mean(columns)
    assert facts["one_threshold"] == (cos[own].min() > cos[~own].max())
    assert facts["positives_violating"] == np.mean(cos[own] <= cos[~own].max())
    assert facts["negatives_violating"] == np.mean(cos[~own] >= cos[own].min())
    assert facts["at_threshold"]["positives_below"] == np.mean(cos[own] <= 0.2)


def test_row_dominance_without_one_threshold():
    """Each sample nearest to its own class, yet one sample's positive below another's negative."""
    angles = np.deg2rad([0, 120, 0 + 50, 120 + 5, 60 - 59])
    points = np.stack([np.cos(angles), np.sin(angles)], 1)
    facts = dominance(similarities(points[2:], np.array([0, 1, 0]), points[:2]))
    assert facts["rows"] == 1.0
    assert facts["one_threshold"]
    far = np.deg2rad([0, 40, 10, 29, 100])
    points = np.stack([np.cos(far), np.sin(far)], 1)
    facts = dominance(similarities(points[2:], np.array([0, 1, 1]), points[:2]))
    assert facts["rows"] == 1.0
    assert not facts["one_threshold"]
    assert facts["positives_violating"] == 1 / 3
    assert facts["negatives_violating"] == 2 / 3
    assert "at_threshold" not in facts


def test_equal_error_rate():
    facts = dominance(similarities(*random_problem(1, 400, 10, 0.8)))
    cos, own = matrix(*random_problem(1, 400, 10, 0.8))
    at, rate = facts["equal_error"]["threshold"], facts["equal_error"]["rate"]
    assert 0.05 < rate < 0.5
    assert abs(np.mean(cos[own] < at) - rate) < 0.01
    assert abs(np.mean(cos[~own] >= at) - rate) < 0.01
    perfect = dominance(similarities(np.eye(4), np.arange(4), np.eye(4)))
    assert perfect["equal_error"]["rate"] == 0
    assert 0 < perfect["equal_error"]["threshold"] < 1
    assert perfect["class_thresholds"] == {"mean": 0.5, "std": 0.0}


def test_bad_input():
    features, labels, prototypes = random_problem(0, 5, 3)
    with pytest.raises(UserError, match=r"labels 0\.\.3; expected some, in 0\.\.2"):
        similarities(features, np.array([0, 1, 2, 3, 0]), prototypes)
    with pytest.raises(UserError, match="1 classes; a negative"):
        similarities(features, labels * 0, prototypes[:1])
    with pytest.raises(UserError, match="prototype 1"):
        similarities(features, labels, prototypes * np.array([[1], [0], [1]]))
