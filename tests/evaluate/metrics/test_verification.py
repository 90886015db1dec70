"""Ten-fold accuracy and pair scores: insightface's numbers, and plain loops."""

import json
from dataclasses import FrozenInstanceError
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from uniface_jax.errors import UserError
from uniface_jax.evaluate.metrics.verification import (
    is_balanced,
    normalize,
    pair_distances,
    pair_scores,
    ten_fold_accuracy,
    verification_metrics,
)


def plain_ten_fold(distances, same, folds):
    """The protocol as a plain loop: KFold without shuffling, np.less, first best threshold."""
    thresholds = np.arange(0, 4, 0.01)
    sizes = [len(same) // folds + (k < len(same) % folds) for k in range(folds)]
    accuracies, chosen = [], []
    for k in range(folds):
        test = np.arange(sum(sizes[:k]), sum(sizes[: k + 1]))
        train = np.setdiff1d(np.arange(len(same)), test)
        best = max(
            thresholds, key=lambda t: np.mean(np.less(distances[train], t) == same[train])
        )  # max keeps the first of equals
        accuracies.append(np.mean(np.less(distances[test], best) == same[test]))
        chosen.append(best)
    return accuracies, chosen


def interleaved(count):
    return np.arange(0, count, 2), np.arange(1, count, 2)


def random_pairs(seed, count=60, dimension=8):
    rng = np.random.default_rng(seed)
    first, second = interleaved(2 * count)
    same = np.arange(count) % 4 < 2
    features = rng.standard_normal((2 * count, dimension))
    features[second[same]] = features[first[same]] + 0.7 * rng.standard_normal(
        (same.sum(), dimension)
    )
    return features, SimpleNamespace(first=first, second=second, same=same)


def test_golden_fold_accuracy(golden):
    file = golden("verification")
    first, second = interleaved(len(file["embeddings"]))
    found = ten_fold_accuracy(pair_distances(file["embeddings"], first, second), file["issame"])
    assert found.accuracy.tolist() == file["fold_accuracy"].tolist()
    assert found.mean == np.mean(file["fold_accuracy"])
    assert found.std == np.std(file["fold_accuracy"])


# Distances on the thresholds themselves, beside them, and beyond the last.
on_thresholds = st.integers(0, 410).map(lambda n: n * 0.01)


@given(
    st.lists(st.tuples(on_thresholds, st.booleans()), min_size=5, max_size=30), st.integers(2, 5)
)
def test_folds_equal_the_plain_loop(pairs, folds):
    distances, same = (np.array(part) for part in zip(*pairs, strict=True))
    assume(same.any() and not same.all())
    found = ten_fold_accuracy(distances, same, folds)
    accuracies, thresholds = plain_ten_fold(distances, same, folds)
    assert found.accuracy.tolist() == accuracies
    assert found.thresholds.tolist() == thresholds


def test_all_distances_equal_gives_the_better_constant_answer():
    same = np.array([True, False, False] * 10)
    found = ten_fold_accuracy(np.full(30, 1.0), same)
    assert found.mean == pytest.approx(2 / 3, abs=1e-12)
    assert (found.thresholds == 0).all()


def test_scores_and_distances_are_those_of_unit_features_across_blocks():
    rng = np.random.default_rng(3)
    features = rng.standard_normal((50, 6)) * 10
    first, second = rng.integers(0, 50, (2, 20_000))
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    cosine = np.array([unit[a] @ unit[b] for a, b in zip(first, second, strict=True)])
    np.testing.assert_allclose(pair_scores(features, first, second), cosine, atol=1e-14)
    np.testing.assert_allclose(pair_distances(features, first, second), 2 - 2 * cosine, atol=1e-14)


def test_metrics_are_json_and_agree_with_plain_counts():
    features, pairs = random_pairs(0)
    metrics = json.loads(json.dumps(verification_metrics(features, pairs, [0.1, 1e-3])))
    scores = pair_scores(features, pairs.first, pairs.second)
    wins = scores[pairs.same][:, None] > scores[~pairs.same]
    assert metrics["auc"] == wins.mean()
    assert 0.6 < metrics["auc"] < 1
    accuracies, thresholds = plain_ten_fold(
        pair_distances(features, pairs.first, pairs.second), pairs.same, 10
    )
    assert [fold["accuracy"] for fold in metrics["accuracy"]["folds"]] == accuracies
    assert metrics["accuracy"]["squared_distance"] == np.mean(thresholds)
    assert (metrics["pairs"], metrics["same"], metrics["different"]) == (60, 30, 30)
    coarse, fine = metrics["tar_at_far"]
    assert coarse["resolvable"]
    assert coarse["strict"]["false_accepts"] == 3
    assert coarse["strict"]["tar"] == np.mean(scores[pairs.same] >= coarse["strict"]["threshold"])
    assert not fine["resolvable"]


def test_metrics_do_not_depend_on_the_length_of_features():
    features, pairs = random_pairs(1)
    scaled = features * np.random.default_rng(2).uniform(0.1, 9, (len(features), 1))
    assert (
        verification_metrics(scaled, pairs)["auc"] == verification_metrics(features, pairs)["auc"]
    )


@pytest.mark.parametrize(
    ("value", "what"), [(np.nan, "not finite"), (np.inf, "not finite"), (0, "zero")]
)
def test_an_unusable_feature_is_named(value, what):
    features = np.ones((4, 3), np.float32)
    features[2] = value
    with pytest.raises(UserError, match=f"feature of image 2 is {what}"):
        normalize(features)


@pytest.mark.parametrize(
    ("distances", "same", "message"),
    [
        (np.ones(9), np.arange(9) < 4, "9 pairs; 10 folds"),
        (np.ones(20), np.ones(20, bool), "all 20 pairs are same"),
        (np.ones(20), np.zeros(20, bool), "all 20 pairs are different"),
        (np.full(20, np.nan), np.arange(20) < 4, "not a finite number"),
    ],
)
def test_unusable_pairs_are_named(distances, same, message):
    with pytest.raises(UserError, match=message):
        ten_fold_accuracy(distances, same)


def test_the_first_of_several_unusable_features_is_named():
    features = np.ones((5, 3))
    features[1], features[3] = 0, np.nan
    with pytest.raises(UserError, match=r"image 1 is zero \(2 of 5 are unusable\)"):
        normalize(features)


@pytest.mark.parametrize(
    ("same", "balanced"), [(500, True), (496, True), (504, True), (495, False), (505, False)]
)
def test_balance_is_to_one_in_a_hundred(same, balanced):
    assert is_balanced({"pairs": 1000, "same": same, "different": 1000 - same}) == balanced


def test_a_threshold_has_the_cosine_at_its_distance():
    rng = np.random.default_rng(0)
    first, second = interleaved(40)
    pairs = SimpleNamespace(first=first, second=second, same=np.arange(20) % 2 == 0)
    accuracy = verification_metrics(rng.normal(size=(40, 8)), pairs)["accuracy"]
    for threshold in (accuracy, *accuracy["folds"]):
        # Of unit vectors |a - b|^2 = 2 - 2 cos.
        distance = 2 - 2 * threshold["threshold_cosine"]
        assert distance == pytest.approx(threshold["squared_distance"])
    assert accuracy["squared_distance"] > 0


def test_an_accuracy_is_a_value_that_stays():
    found = ten_fold_accuracy(np.where(np.arange(20) % 2, 1.5, 0.5), np.arange(20) % 2 == 0)
    with pytest.raises(FrozenInstanceError):
        found.mean = 0.5


@pytest.mark.parametrize(("first", "second"), [((2, 2), (2, 2)), ((3,), (2,)), ((2,), (3,))])
@pytest.mark.parametrize("compare", [pair_scores, pair_distances])
def test_rows_of_another_shape_are_no_pairs(compare, first, second):
    with pytest.raises(ValueError, match=r"expected both \[P\]"):
        compare(np.ones((4, 3)), np.zeros(first, int), np.zeros(second, int))


def test_arrays_without_rows_are_refused():
    with pytest.raises(ValueError, match=r"expected \[N, D\]"):
        normalize(np.ones(3))
    with pytest.raises(ValueError, match=r"expected both \[P\]"):
        pair_distances(np.ones((4, 3)), np.array(0), np.array(1))
    with pytest.raises(ValueError, match=r"expected both \[P\]"):
        ten_fold_accuracy(np.array(0.5), np.array(True))


def test_more_pairs_than_a_thread_scores_at_a_time():
    features = np.random.default_rng(0).normal(size=(50, 2))
    first, second = np.arange(140_000) % 50, np.arange(140_000) % 49
    unit = normalize(features)
    expected = np.sum(unit[first] * unit[second], axis=1)
    np.testing.assert_array_equal(pair_scores(features, first, second), expected)
