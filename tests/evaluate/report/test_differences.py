"""Differences of two models by the resamples that their results hold."""

import numpy as np
import pytest

from uniface_jax.evaluate.drawings import resamples
from uniface_jax.evaluate.metrics.pair_intervals import verification_intervals
from uniface_jax.evaluate.metrics.roc import roc, tar_at_far
from uniface_jax.evaluate.metrics.verification import tar_summary, ten_fold_accuracy
from uniface_jax.evaluate.report.differences import differences, table
from uniface_jax.evaluate.report.results import Run
from uniface_jax.evaluate.report.uncertainty import intervals_table, notes


def measured(scores, same):
    """Metrics of a set, and what was resampled."""
    distances = 2 - 2 * scores
    folds = ten_fold_accuracy(distances, same)
    metrics = {
        "tar_at_far": tar_summary(tar_at_far(roc(scores, same), [0.1, 1e-4])),
        "accuracy": {"folds": [{"accuracy": float(a)} for a in folds.accuracy]},
    }
    found = verification_intervals(metrics, scores, distances, same)
    return {"intervals": found.intervals, "thresholds": found.thresholds}, found


def run(name, scores, same, digest="d"):
    metrics, found = measured(scores, same)
    drawing = resamples(found.intervals, found.estimates, found.replicates)
    return Run(
        name,
        {"protocols": {"pairs": {"sets": {"faces": {"sha256": digest, **metrics}}}}},
        {"pairs": {"faces": {"resamples": drawing}}},
    )


@pytest.fixture(scope="module")
def scores():
    rng = np.random.default_rng(0)
    same = np.arange(1000) // 50 % 2 == 0
    return np.clip(rng.normal(same * 0.35, 0.15), -1, 1), same


def test_a_small_difference_on_the_same_pairs_is_seen(scores):
    """Paired, it is seen; by two independent intervals it would not be."""
    values, same = scores
    better = values + 0.03 * same
    first, second = run("a", values, same), run("b", better, same)
    found = {of.tested.number: of.tested for of in differences([first, second])}
    assert set(found) == {"10-fold accuracy", "TAR@FAR≤0.1", "TAR@FAR≈0.1"}
    tar = found["TAR@FAR≤0.1"]
    accepted = [np.mean(s[same] > np.sort(s[~same])[-51]) for s in (values, better)]
    assert tar.difference == pytest.approx(accepted[1] - accepted[0])
    assert 0 < tar.lower < tar.difference < tar.upper
    assert tar.p < 0.05
    bounds = [
        of.metrics["protocols"]["pairs"]["sets"]["faces"]["intervals"]["tar_at_far"][0]["strict"]
        for of in (first, second)
    ]
    assert bounds[0]["tar"]["upper"] > bounds[1]["tar"]["lower"]
    heads, rows = table(differences([first, second]))
    assert all(len(row) == len(heads) for row in rows)
    assert rows[0][2] == "b - a"


def test_equal_models_do_not_differ(scores):
    found = differences([run("a", *scores), run("b", *scores)])
    assert {of.tested[1:5] for of in found} == {(0.0, 0.0, 0.0, 1.0)}


def test_other_data_and_other_draws_are_not_compared(scores):
    values, same = scores
    first = run("a", values, same)
    assert differences([first, run("b", values, same, digest="e")]) == []
    assert differences([first, run("b", values[:900], same[:900])]) == []


def test_intervals_and_notes_are_shown(scores):
    metrics, _ = measured(*scores)
    heads, rows = intervals_table({"faces": metrics, "other": {}})
    assert heads == ["95 % interval", "faces"]
    assert dict(rows)["drawn"] == "1,000 pairs"
    assert [row[0] for row in rows] == [
        "accuracy", "TAR@FAR≈0.1", "TAR@FAR≈0.0001", "TAR@FAR≤0.1", "TAR@FAR≤0.0001", "drawn",
    ]  # fmt: skip
    assert notes(metrics) == [
        "too few pairs for FAR 0.0001: 500 different ones, where 10,000 are needed"
    ]
    assert intervals_table({"other": {}}) is None
