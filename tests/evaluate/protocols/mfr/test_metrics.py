"""MFR against its definition, written plainly."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.exact_scores import ONE_DEVICE, WIDTH, signs, strict, unit_scores
from uniface_jax.errors import UserError
from uniface_jax.evaluate.all_pairs.engine import Targets, all_pairs
from uniface_jax.evaluate.all_pairs.tiles import LabeledFeatures
from uniface_jax.evaluate.protocols.mfr.metrics import Undefined, mfr_metrics, population_pairs


@given(seed=st.integers(0, 2**32 - 1), images=st.integers(4, 60))
def test_populations(seed, images):
    rng = np.random.default_rng(seed)
    features, labels = signs(rng, images), rng.integers(0, max(2, images // 4), images)
    populations = rng.choice(["African", "Caucasian"], images)
    labels[:3] = [0, 0, 1]
    results = population_pairs(
        LabeledFeatures(features, labels), populations, targets=Targets((0.1, 1e-3)),
        progress=False, wanted=["African", "Caucasian", "Martian"], tiling=ONE_DEVICE,
    )  # fmt: skip
    assert list(results) == ["African", "Caucasian", "Martian", "ALL"]
    assert results["Martian"] == Undefined("no image", 0)
    for name in ("African", "Caucasian", "ALL"):
        rows = np.flatnonzero((populations == name) | (name == "ALL"))
        scores = unit_scores(features[rows], features[rows])
        i, j = np.triu_indices(len(rows), 1)
        same = labels[rows][i] == labels[rows][j]
        result = results[name]
        if len(rows) == 0 or same.all() or not same.any():
            assert isinstance(result, Undefined)
            assert mfr_metrics(results, None)["all_to_all"][name]["undefined"] == result.reason
            continue
        assert [point.strict for point in result.points] == strict(scores[i, j], same, (0.1, 1e-3))
        hard = result.hardest_different
        assert set(hard.first) | set(hard.second) <= set(rows)
        assert (labels[hard.first] != labels[hard.second]).all()


def test_mask_and_the_combined_score():
    rng = np.random.default_rng(0)
    masked, plain = signs(rng, 40), signs(rng, 80)
    labels, plain_labels = np.arange(40), np.arange(80) // 2
    sides = LabeledFeatures(masked, labels), LabeledFeatures(plain, plain_labels)
    options = dict(targets=Targets((0.2,)), tiling=ONE_DEVICE)
    mask = all_pairs(*sides, **options)
    scores, same = unit_scores(masked, plain), labels[:, None] == plain_labels[None]
    assert [p.strict for p in mask.points] == strict(scores.ravel(), same.ravel(), (0.2,))
    everyone = population_pairs(sides[1], progress=False, **options)
    metrics = mfr_metrics(everyone, mask)
    tars = [
        part["tar_at_far"][0]["strict"]["tar"]
        for part in (metrics["mask"], metrics["all_to_all"]["ALL"])
    ]
    assert metrics["combined"] == 0.25 * tars[0] + 0.75 * tars[1]
    assert mfr_metrics(everyone, None)["combined"] is None


def test_a_population_may_not_be_called_all():
    images = LabeledFeatures(np.ones((2, WIDTH)), np.arange(2))
    with pytest.raises(UserError, match="ALL, which stands for"):
        population_pairs(images, np.array(["ALL", "x"]), targets=Targets())
