"""Intervals of MegaFace's thresholds against people who are drawn again one by one."""

import numpy as np

from tests.helpers.exact_scores import ONE_DEVICE, signs, unit_scores
from uniface_jax.evaluate.all_pairs.engine import Targets
from uniface_jax.evaluate.all_pairs.tiles import LabeledFeatures
from uniface_jax.evaluate.protocols.megaface.intervals import megaface_intervals
from uniface_jax.evaluate.protocols.megaface.metrics import Challenge, megaface

FARS = (0.01, 0.05)


def cosines(first, second):
    first, second = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (first, second))
    return first @ second.T


def test_distractors_that_reach_a_threshold_are_counted_for_each_probe():
    rng = np.random.default_rng(0)
    probes, others = signs(rng, 30), signs(rng, 200)
    labels = rng.permutation(np.arange(30) // 3)
    result = megaface(
        LabeledFeatures(probes, labels), others,
        challenge=Challenge((10,), pairs=Targets((0.3, 0.02, 1e-9))), tiling=ONE_DEVICE,
    )  # fmt: skip
    cross = unit_scores(probes, others)
    barriers = [point.strict.threshold for point in result.verification.points]
    assert len(barriers) == 3
    expected = np.stack([(cross >= barrier).sum(axis=1) for barrier in barriers], axis=1)
    assert result.false_accepts.tolist() == expected.tolist()
    assert result.probe_people.tolist() == labels.tolist()


def test_intervals_are_about_those_of_people_drawn_again():
    """The threshold of each resample, found by sorting all of its scores."""
    rng = np.random.default_rng(1)
    people, each, width = 60, 3, 16
    center = 0.6 * rng.standard_normal(width)  # which some are nearer to than others
    pull = np.repeat(rng.uniform(0, 2, people), each)[:, None]
    own = np.repeat(rng.standard_normal((people, width)), each, axis=0)
    probes = own + pull * center + 0.3 * rng.standard_normal((people * each, width))
    others = rng.standard_normal((400, width)) + center
    labels = np.repeat(np.arange(people), each)
    result = megaface(
        LabeledFeatures(probes, labels), others, challenge=Challenge(pairs=Targets(FARS))
    )
    found = megaface_intervals(result)
    scores = cosines(probes, others).reshape(people, -1)
    for far, entry in zip(FARS, found.thresholds, strict=True):
        drawn = [np.quantile(scores[rng.integers(0, people, people)], 1 - far) for _ in range(400)]
        limits = entry["threshold_cosine_interval"]
        spread = np.std(drawn)
        for end, quantile in (("lower", 0.025), ("upper", 0.975)):
            assert abs(limits[end] - np.quantile(drawn, quantile)) < 0.6 * spread
        assert limits["lower"] < entry["threshold_cosine"] < limits["upper"]
        assert entry["far_interval"]["lower"] < far < entry["far_interval"]["upper"]


def test_too_few_pairs_reach_from_the_scores_to_one():
    rng = np.random.default_rng(2)
    probes, others = rng.standard_normal((8, 6)), rng.standard_normal((20, 6))
    result = megaface(
        LabeledFeatures(probes, np.arange(8) // 2), others,
        challenge=Challenge(pairs=Targets((1e-6,))),
    )  # fmt: skip
    (entry,) = megaface_intervals(result).thresholds
    assert "too few pairs" in entry["note"]
    limits = entry["threshold_cosine_interval"]
    assert limits["lower"] < cosines(probes, others).max() < limits["upper"] == 1
