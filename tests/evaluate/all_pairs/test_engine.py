"""The all-pairs engine against sorting all pairs, on scores that are exact in any order of sums."""

import os

import jax
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from uniface_jax.errors import UserError
from uniface_jax.evaluate.all_pairs.engine import Targets, all_pairs, all_pairs_metrics
from uniface_jax.evaluate.all_pairs.tiles import LabeledFeatures, PairTiles, Tiling
from uniface_jax.evaluate.metrics.roc import roc, roc_auc, tar_at_far

FARS = (1e-6, 1e-4, 1e-3, 1e-2, 0.1, 0.5, 1.0)
WIDTH = 4  # one dimension throughout: every other would compile anew
ONE = Tiling(normalized=True, block=128, devices=jax.devices()[:1])


def whole_features(rng: np.random.Generator, images: int, largest: int) -> np.ndarray:
    """Whole numbers: their products are exact in float32, in whatever order they are summed."""
    return rng.integers(-largest, largest + 1, (images, WIDTH)).astype(np.float32)


def every_pair(features, labels, others=None, other_labels=None):
    """Scores, whether same, and the rows of all pairs: by the definition."""
    if others is None:
        first, second = np.triu_indices(len(features), 1)
        others, other_labels = features, labels
    else:
        first, second = (x.ravel() for x in np.indices((len(features), len(others))))
    scores = np.einsum("pd,pd->p", features[first], others[second], dtype=np.float64)
    return scores, labels[first] == other_labels[second], first, second


def check(result, scores, same) -> None:
    """Everything a result says against all scores."""
    curve = roc(scores, same)
    assert (result.positives, result.negatives) == (curve.positives, curve.negatives)
    expected = tar_at_far(curve, [point.target for point in result.points])
    assert [point.strict for point in result.points] == [point.strict for point in expected]
    assert [point.resolvable for point in result.points] == [p.resolvable for p in expected]
    area = roc_auc(scores, same)
    assert result.auc[0] - 1e-12 <= area <= result.auc[1] + 1e-12
    at = result.curve.thresholds[:-1]
    for kind, counts in ((same, "true_accepts"), (~same, "false_accepts")):
        reached = kind.sum() - np.searchsorted(np.sort(scores[kind]), at)  # those >= a threshold
        np.testing.assert_array_equal(getattr(result.curve, counts)[:-1], reached)
    assert result.curve.positives == curve.positives
    assert result.curve.negatives == curve.negatives
    if result.complete:
        np.testing.assert_array_equal(result.curve.thresholds, curve.thresholds)
        assert result.auc == (area, area)
    assert np.all(np.diff(result.line.far) >= 0)
    assert np.all(np.diff(result.line.tar) >= 0)
    assert result.histogram.same.sum() == curve.positives
    assert result.histogram.different.sum() == result.histogram.different_pairs


def check_hardest(result, pairs, keep: int) -> None:
    scores, same, first, second = pairs
    ordered = zip(first.tolist(), second.tolist(), strict=True)  # the lower row first
    score_of = dict(zip(ordered, scores.tolist(), strict=True))
    for hard, kind, sign in (
        (result.hardest_same, same, 1),
        (result.hardest_different, ~same, -1),
    ):
        assert hard.scores.tolist() == (sign * np.sort(sign * scores[kind]))[:keep].tolist()
        named = list(zip(hard.first.tolist(), hard.second.tolist(), strict=True))
        assert len(set(named)) == len(named)
        assert [score_of[min(pair), max(pair)] for pair in named] == hard.scores.tolist()


@given(
    seed=st.integers(0, 2**32 - 1),
    images=st.integers(3, 300),
    people=st.integers(1, 300),
    largest=st.sampled_from([0, 1, 3, 1000]),
    budget=st.sampled_from([3, 50, 1000, 1 << 24]),
    hardest=st.sampled_from([0, 5]),
)
@example(seed=0, images=200, people=20, largest=0, budget=50, hardest=5)  # all scores equal
@example(seed=0, images=200, people=1, largest=3, budget=50, hardest=5)  # one identity
@example(seed=0, images=300, people=40, largest=1, budget=50, hardest=5)  # ties
def test_one_set(seed, images, people, largest, budget, hardest):
    rng = np.random.default_rng(seed)
    features, labels = whole_features(rng, images, largest), rng.integers(0, people, images)
    pairs = every_pair(features, labels)
    images = LabeledFeatures(features, labels)
    options = dict(targets=Targets(FARS, hardest, budget), tiling=ONE)
    if pairs[1].all() or not pairs[1].any():
        with pytest.raises(UserError, match=r"all \d+ pairs of \d+ images are (same|different)"):
            all_pairs(images, **options)
        return
    result = all_pairs(images, **options)
    check(result, *pairs[:2])
    check_hardest(result, pairs, hardest)


@given(
    seed=st.integers(0, 2**32 - 1),
    images=st.tuples(st.integers(1, 200), st.integers(1, 300)),
    people=st.integers(2, 100),
    largest=st.sampled_from([1, 1000]),
    budget=st.sampled_from([50, 1 << 24]),
)
def test_two_sets(seed, images, people, largest, budget):
    rng = np.random.default_rng(seed)
    features, others = (whole_features(rng, n, largest) for n in images)
    labels, other_labels = (rng.integers(0, people, n).astype(str) for n in images)
    pairs = every_pair(features, labels, others, other_labels)
    sets = LabeledFeatures(features, labels), LabeledFeatures(others, other_labels)
    options = dict(targets=Targets(FARS, budget=budget), tiling=ONE)
    if pairs[1].all() or not pairs[1].any():
        with pytest.raises(UserError, match="expected same and different"):
            all_pairs(*sets, **options)
        return
    check(all_pairs(*sets, **options), *pairs[:2])


def test_devices_and_blocks_do_not_change_anything():
    rng = np.random.default_rng(0)
    features, labels = whole_features(rng, 600, 50), rng.integers(0, 100, 600)
    results = [
        all_pairs(
            LabeledFeatures(features, labels),
            targets=Targets(FARS, budget=2000),
            tiling=Tiling(True, block, devices),
        )
        for block, devices in ((640, jax.devices()[:1]), (128, jax.devices()[:3]))
    ]
    assert len(jax.devices()) >= 3
    assert results[0].passes > 1
    check(results[0], *every_pair(features, labels)[:2])
    metrics = [all_pairs_metrics(result)["tar_at_far"] for result in results]
    assert metrics[0] == metrics[1]


def test_features_are_brought_to_length_one():
    rng = np.random.default_rng(0)
    features, labels = rng.standard_normal((200, WIDTH)) * 7, rng.integers(0, 20, 200)
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    result = all_pairs(LabeledFeatures(features, labels), targets=Targets((1e-2, 0.1)))
    scores, same, *_ = every_pair(unit, labels)
    for point, expected in zip(
        result.points, tar_at_far(roc(scores, same), (1e-2, 0.1)), strict=True
    ):
        assert point.strict.threshold == pytest.approx(expected.strict.threshold, abs=1e-6)
        assert abs(point.strict.false_accepts - expected.strict.false_accepts) <= 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(value=np.nan), "the feature of image 7 is not finite"),
        (dict(value=np.inf, normalized=True), "the feature of image 7 is not finite"),
        (dict(value=0), "the feature of image 7 is zero"),
        (dict(fars=(0,)), "FAR 0: expected"),
        (dict(fars=(1.5,)), "FAR 1.5: expected"),
        (dict(labels=np.arange(19)), "19 labels for 20 images"),
        (dict(labels=np.arange(20)), "all 190 pairs of 20 images are different"),
    ],
)
def test_bad_input(change, message):
    features = np.random.default_rng(0).standard_normal((20, WIDTH))
    if "value" in change:
        features[7] = change.pop("value")
    labels = change.pop("labels", np.arange(20) // 2)
    targets, tiling = Targets(change.pop("fars", FARS)), Tiling(**change)
    with pytest.raises(UserError, match=message) as raised:
        all_pairs(LabeledFeatures(features, labels), targets=targets, tiling=tiling)
    assert "\n" not in str(raised.value)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["whole", "unit"])
def test_twenty_thousand_images_as_sorting_all_pairs_says(kind):
    images = int(os.environ.get("UNIFACE_PAIRS", 20_000))
    rng = np.random.default_rng(0)
    labels = rng.integers(0, images // 8, images)
    if kind == "whole":
        features = rng.integers(-90, 91, (images, 128)).astype(np.float32)
    else:
        features = rng.standard_normal((images, 128), np.float32)
        features += 0.7 * rng.standard_normal((images // 8, 128), np.float32)[labels]
        features /= np.linalg.norm(features, axis=1, keepdims=True)
    images_of = LabeledFeatures(features, labels)
    result = all_pairs(images_of, targets=Targets(FARS), tiling=Tiling(normalized=True))
    scores, same = [], []
    if kind == "whole":
        for row in range(0, images, 1000):
            below = np.arange(row, min(row + 1000, images))[:, None] < np.arange(row, images)
            scores.append((features[row : row + 1000] @ features[row:].T)[below])
            same.append((labels[row : row + 1000, None] == labels[row:])[below])
    else:  # sums round, so that the scores have to be those of the engine's own product
        tiles = PairTiles(images_of, tiling=Tiling(normalized=True))
        sorted_labels = labels[tiles.row_order]
        for i, j in tiles.tiles:
            row = np.arange(tiles.shape[0])[:, None] + i * tiles.shape[0]
            column = np.arange(tiles.shape[1])[None] + j * tiles.shape[1]
            pair = (row < column) & (column < images)
            row, column = np.broadcast_arrays(row, column)
            scores.append(np.asarray(tiles.product((i, j), 0))[pair])
            same.append(sorted_labels[row[pair]] == sorted_labels[column[pair]])
    scores, same = np.concatenate(scores), np.concatenate(same)
    positive, negative = scores[same], scores[~same]
    positive.sort()
    negative.sort()
    assert (result.positives, result.negatives) == (len(positive), len(negative))
    for point in result.points:
        allowed = int(np.floor(point.target * len(negative)))
        # Of their type, or all scores would be converted to find it.
        rejected = negative[-1 - allowed] if allowed < len(negative) else -np.float32(np.inf)
        false = len(negative) - np.searchsorted(negative, rejected, side="right")
        true = len(positive) - np.searchsorted(positive, rejected, side="right")
        accepted = [part[-count] for part, count in ((negative, false), (positive, true)) if count]
        assert vars(point.strict) == {
            "far": false / len(negative),
            "tar": true / len(positive),
            "threshold": min(accepted, default=np.inf),
            "true_accepts": true,
            "false_accepts": false,
        }
