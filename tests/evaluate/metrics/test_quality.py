"""Errors versus rejected pairs: CR-FIQA's golden numbers, and a plain loop."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from uniface_jax.evaluate.metrics.quality import FMRS, REJECTED, error_versus_reject
from uniface_jax.evaluate.metrics.verification import pair_scores


def test_golden_errors(golden2):
    data = {k.removeprefix("erc/"): v for k, v in golden2("protocols2").items() if "erc/" in k}
    features = np.concatenate([data["embeddings0"], data["embeddings1"]])
    rows = np.arange(len(data["same"]))
    scores = pair_scores(features, rows, rows + len(rows))
    np.testing.assert_array_equal(REJECTED, data["rejected"])
    found = error_versus_reject(scores, data["same"], data["quality"].min(axis=1))
    for column, (fmr, entry) in enumerate(zip(("0.01", "0.001", "0.0001"), found, strict=True)):
        assert entry["fmr"] == float(fmr)
        recomputed, fixed = entry["recomputed"], entry["fixed"]
        np.testing.assert_allclose(recomputed["fnmr"], data[f"fnmr_at_{fmr}"], rtol=1e-14)
        np.testing.assert_allclose(fixed["fnmr"], data[f"fixed_fnmr_at_{fmr}"], rtol=1e-14)
        angles = np.arccos(recomputed["thresholds"]) / np.pi
        np.testing.assert_allclose(angles, data["thresholds"][:, column], rtol=1e-13)
        assert recomputed["area"] == pytest.approx(float(data[f"auc_at_{fmr}"]), rel=1e-14)


SCORE = st.integers(-3, 3).map(lambda third: third / 3)


@given(
    st.lists(st.tuples(SCORE, st.booleans(), st.integers(0, 3)), min_size=1, max_size=15),
    st.sampled_from([0.001, 0.2, 0.5, 1.0]),
)
def test_errors_are_those_of_plain_loops(pairs, fmr):
    """With ties of scores and of quality, and pairs of one kind alone."""
    shares = np.array([0.0, 0.25, 0.5, 0.9])
    scores, same, quality = (np.array(column) for column in zip(*pairs, strict=True))
    (found,) = error_versus_reject(scores, same, quality, [fmr], shares)
    worst = sorted(range(len(pairs)), key=lambda i: (quality[i], i))
    first, expected, fixed = None, [], []
    for share in shares:
        kept = [pairs[i] for i in worst[int(share * len(pairs)) :]]
        genuine = [score for score, is_same, _ in kept if is_same]
        impostors = [score for score, is_same, _ in kept if not is_same]
        threshold = None
        if genuine and impostors:
            distances = {
                score: abs(np.mean([i >= score for i in impostors]) - fmr) for score, *_ in kept
            }
            threshold = min(distances, key=lambda score: (distances[score], score))
        first = threshold if share == 0 else first
        for limit, errors in ((threshold, expected), (first, fixed)):
            known = limit is not None and genuine
            errors.append(np.mean([score <= limit for score in genuine]) if known else None)
    assert found["recomputed"]["fnmr"] == expected
    assert found["fixed"]["fnmr"] == fixed
    there = [i for i, error in enumerate(expected) if error is not None]
    area = sum(
        (expected[a] + expected[b]) / 2 * (shares[b] - shares[a])
        for a, b in itertools.pairwise(there)
    )
    assert found["recomputed"]["area"] == (pytest.approx(area) if len(there) > 1 else None)
    assert FMRS == (1e-2, 1e-3, 1e-4)
