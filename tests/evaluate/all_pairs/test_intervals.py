"""Intervals of all pairs against those of the same pairs as a list."""

import numpy as np
import pytest

from uniface_jax.evaluate.all_pairs import intervals as module
from uniface_jax.evaluate.all_pairs.engine import Targets, all_pairs, all_pairs_metrics
from uniface_jax.evaluate.all_pairs.intervals import all_pairs_intervals
from uniface_jax.evaluate.all_pairs.tiles import LabeledFeatures
from uniface_jax.evaluate.metrics.bootstrap import Resampling
from uniface_jax.evaluate.metrics.pair_intervals import scores_by_people, tar_intervals
from uniface_jax.evaluate.metrics.roc import roc, tar_at_far
from uniface_jax.evaluate.metrics.verification import tar_summary

FEW = Resampling(50)


@pytest.mark.parametrize("within", [True, False])
def test_all_pairs_are_drawn_as_the_list_of_them_is(monkeypatch, within):
    monkeypatch.setattr(module, "_BLOCK_ROWS", 7)
    rng = np.random.default_rng(0)
    people = np.repeat(np.arange(12), 3)
    features = rng.standard_normal((12, 16))[people] + rng.standard_normal((36, 16))
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    sides = (slice(None),) * 2 if within else (slice(0, None, 2), slice(1, None, 2))
    codes = [people[side] for side in sides]
    first, second = np.indices([len(part) for part in codes]).reshape(2, -1)
    if within:
        first, second = (part[first < second] for part in (first, second))
    scores = np.einsum("pd,pd->p", features[sides[0]][first], features[sides[1]][second])
    scores, same = scores.astype(np.float32), codes[0][first] == codes[1][second]
    entries = tar_summary(tar_at_far(roc(scores, same), [0.2, 0.02, 1e-5]))
    expected = tar_intervals(
        entries, scores_by_people(scores, same, codes[0][first], codes[1][second]), FEW
    )
    names = np.array([f"p{code:02}" for code in people])
    given = [LabeledFeatures(3 * features[side], names[side]) for side in sides]
    metrics = {"same": same.sum(), "different": (~same).sum(), "tar_at_far": entries}
    found = all_pairs_intervals(given[0], None if within else given[1], metrics, FEW)
    assert found.intervals["units"] == "people"
    assert found.intervals["count"] == 12
    for one, other in zip(
        found.intervals["tar_at_far"], expected.intervals["tar_at_far"], strict=True
    ):
        for rate in ("tar", "far"):
            for bound in ("lower", "upper"):
                assert one["strict"][rate][bound] == pytest.approx(other["strict"][rate][bound])
    assert "too few pairs" in found.thresholds[2]["note"]


def test_a_part_of_the_people_says_how_much_all_of_them_vary(monkeypatch):
    rng = np.random.default_rng(0)
    people = np.repeat(np.arange(300), 3)
    noise = rng.uniform(0.5, 1.2, (300, 1))[people] * rng.standard_normal((900, 16))
    features = rng.standard_normal((300, 16))[people] + noise
    images = LabeledFeatures(features, people)
    metrics = all_pairs_metrics(all_pairs(images, targets=Targets((0.1, 0.01, 1e-9))))
    whole = all_pairs_intervals(images, None, metrics)
    monkeypatch.setattr(module, "MAX_PAIRS", 100_000)
    part = all_pairs_intervals(images, None, metrics)
    assert whole.intervals["count"] == 300
    assert 130 < part.intervals["count"] < 160
    for kind in ("tar", "far"):
        for one, other in zip(
            part.intervals["tar_at_far"][:2], whole.intervals["tar_at_far"], strict=False
        ):
            widths = [
                of["strict"][kind]["upper"] - of["strict"][kind]["lower"] for of in (one, other)
            ]
            assert 0.6 < widths[0] / widths[1] < 1.7
            assert one["strict"][kind]["lower"] < metrics["tar_at_far"][0]["strict"][kind]
    for one, other in zip(part.thresholds[:2], whole.thresholds, strict=False):
        assert one["threshold_cosine"] == other["threshold_cosine"]
        limits = [of["threshold_cosine_interval"] for of in (one, other)]
        widths = [of["upper"] - of["lower"] for of in limits]
        assert 0.6 < widths[0] / widths[1] < 1.7
        assert limits[0]["lower"] < one["threshold_cosine"] < limits[0]["upper"]
    assert "too few pairs" in part.thresholds[2]["note"]
    monkeypatch.setattr(module, "MAX_PAIRS", 2000)
    few = all_pairs_intervals(images, None, metrics)
    assert "no interval at FAR 0.01: too few false accepts of the" in few.thresholds[1]["note"]
