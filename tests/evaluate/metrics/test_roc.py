"""ROC, area and TAR at FAR against counting every pair by hand."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from uniface_jax.errors import UserError
from uniface_jax.evaluate.metrics.roc import roc, roc_auc, tar_at_far

TARGETS = (1e-3, 0.05, 0.1, 1 / 3, 0.5, 0.9)

# Few distinct scores, so that ties within and across same and different pairs are common.
pairs_with_ties = st.lists(
    st.tuples(st.integers(-4, 4).map(lambda n: n / 4), st.booleans()), min_size=2, max_size=40
)


def split(pairs):
    scores, same = (np.array(part) for part in zip(*pairs, strict=True))
    assume(same.any() and not same.all())
    return scores, same


@given(pairs_with_ties)
def test_auc_is_the_share_of_same_different_pairs_in_order(pairs):
    scores, same = split(pairs)
    wins = [1.0 if p > n else 0.5 if p == n else 0.0 for p in scores[same] for n in scores[~same]]
    assert roc_auc(scores, same) == sum(wins) / len(wins)


@given(pairs_with_ties)
def test_every_point_counts_the_pairs_at_or_above_its_threshold(pairs):
    scores, same = split(pairs)
    curve = roc(scores, same)
    assert curve.thresholds.tolist() == [np.inf, *sorted(set(scores), reverse=True)]
    for i, threshold in enumerate(curve.thresholds):
        assert curve.true_accepts[i] == np.sum(scores[same] >= threshold)
        assert curve.false_accepts[i] == np.sum(scores[~same] >= threshold)
    assert (curve.positives, curve.negatives) == (same.sum(), (~same).sum())


@given(pairs_with_ties)
def test_strict_tar_is_the_largest_with_far_within_the_target(pairs):
    scores, same = split(pairs)
    for target, found in zip(TARGETS, tar_at_far(roc(scores, same), TARGETS), strict=True):
        allowed = [
            np.mean(scores[same] >= t)
            for t in [np.inf, *scores]
            if np.mean(scores[~same] >= t) <= target
        ]
        point = found.strict
        assert point.tar == max(allowed)
        assert point.far <= target
        below = [t for t in scores if t < point.threshold]
        assert not below or np.mean(scores[~same] >= max(below)) > target
        assert point.tar == np.mean(scores[same] >= point.threshold)
        assert point.far == np.mean(scores[~same] >= point.threshold)
        assert found.resolvable == (target >= 1 / np.sum(~same))


def insightface_tar(scores, same, target):
    """insightface's IJB evaluation over a plain rewriting of sklearn.metrics.roc_curve."""
    thresholds = sorted(set(scores), reverse=True)
    fps = [int(np.sum(scores[~same] >= t)) for t in thresholds]
    tps = [int(np.sum(scores[same] >= t)) for t in thresholds]
    kept = [
        i
        for i in range(len(fps))
        if i in (0, len(fps) - 1)
        or fps[i + 1] - fps[i] != fps[i] - fps[i - 1]
        or tps[i + 1] - tps[i] != tps[i] - tps[i - 1]
    ]
    fpr = np.flipud([0.0] + [fps[i] / fps[-1] for i in kept])
    tpr = np.flipud([0.0] + [tps[i] / tps[-1] for i in kept])
    _, nearest = min(zip(abs(fpr - target), range(len(fpr)), strict=True))
    return tpr[nearest]


@given(pairs_with_ties)
def test_nearest_tar_is_insightfaces(pairs):
    scores, same = split(pairs)
    for target, found in zip(TARGETS, tar_at_far(roc(scores, same), TARGETS), strict=True):
        assert found.nearest.tar == insightface_tar(scores, same, target)
        assert found.nearest.far == np.mean(scores[~same] >= found.nearest.threshold)


def test_the_two_readings_differ_where_the_nearest_point_lies_above_the_target():
    scores = np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.4])
    same = np.array([True, False, True, False, True, False])
    (found,) = tar_at_far(roc(scores, same), [0.3])
    assert (found.strict.tar, found.strict.far, found.strict.threshold) == (1 / 3, 0, 0.9)
    assert (found.nearest.tar, found.nearest.far, found.nearest.threshold) == (2 / 3, 1 / 3, 0.7)
    assert not found.resolvable


def test_golden_tar_at_far_of_ijb(golden):
    file = golden("ijb")
    found = tar_at_far(roc(file["scores"], file["label"] == 1), file["far_points"])
    assert [f.nearest.tar for f in found] == file["tar"].tolist()


def test_all_scores_equal_give_half_and_no_strict_accept():
    scores, same = np.full(6, 0.25), np.array([True, True, False, False, False, False])
    assert roc_auc(scores, same) == 0.5
    (found,) = tar_at_far(roc(scores, same), [0.4])
    assert (found.strict.tar, found.strict.threshold) == (0.0, np.inf)


@pytest.mark.parametrize(
    ("scores", "same", "message"),
    [
        ([0.1, 0.2], [True, True], "all 2 pairs are same"),
        ([0.1, 0.2], [False, False], "all 2 pairs are different"),
        ([], [], "all 0 pairs"),
        ([0.1, np.nan, 0.3], [True, False, True], "score of pair 1 is nan"),
        ([0.1, 0.2, -np.inf], [True, False, True], "score of pair 2 is -inf"),
    ],
)
def test_unusable_scores_are_named(scores, same, message):
    with pytest.raises(UserError, match=message):
        roc(np.array(scores), np.array(same, bool))


def test_scores_of_another_shape_are_no_pairs():
    for shape, other in (((2, 2), (2, 2)), ((4,), (3,)), ((), ())):
        with pytest.raises(ValueError, match=r"expected both \[P\]"):
            roc(np.zeros(shape), np.zeros(other, bool))


def test_a_curve_equals_itself_alone():
    """Arrays have no single truth value, so curves are compared and hashed as objects."""
    curve, other = (roc(np.array([0.9, 0.1]), np.array([True, False])) for _ in range(2))
    assert curve != other
    assert len({curve, other, curve}) == 2
