"""Intervals of all pairs against those of the same pairs as a list."""

import numpy as np
import pytest

from uniface_jax.evaluate.all_pairs import intervals as module
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
    found = all_pairs_intervals(given[0], None if within else given[1], entries, FEW)
    assert found.intervals["units"] == "people"
    assert found.intervals["count"] == 12
    for one, other in zip(
        found.intervals["tar_at_far"], expected.intervals["tar_at_far"], strict=True
    ):
        for rate in ("tar", "far"):
            for bound in ("lower", "upper"):
                assert one["strict"][rate][bound] == pytest.approx(other["strict"][rate][bound])
    assert "too few pairs" in found.thresholds[2]["note"]
    monkeypatch.setattr(module, "MAX_PAIRS", 100)
    assert all_pairs_intervals(given[0], None if within else given[1], entries, FEW) is None
