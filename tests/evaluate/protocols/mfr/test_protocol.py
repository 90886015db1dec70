"""Masked against plain faces from folders on disk, against a loop over all pairs."""

import numpy as np
import pytest

from tests.helpers.feature_sources import computed_features
from uniface_jax.evaluate.arguments import Parts
from uniface_jax.evaluate.protocols import PROTOCOLS
from uniface_jax.evaluate.protocols.base import Options


def test_masked_against_plain_and_the_combined_score(world, tmp_path):
    folder, features = world
    parts = Parts([], dict.fromkeys(("all", "masked", "plain"), folder / "north"))
    found = PROTOCOLS["mfr"].run(parts, computed_features(tmp_path), Options([0.1]))
    assert list(found) == ["ALL", "mask", "combined"]
    names = [n for n in features if n.startswith("north")]
    pairs = [(a, b) for a in names for b in names]
    scores = np.array([features[a] @ features[b] for a, b in pairs])
    same = np.array([a.rsplit("/", 1)[0] == b.rsplit("/", 1)[0] for a, b in pairs])
    mask = found["mask"].metrics
    assert (mask["same"], mask["different"]) == (same.sum(), (~same).sum())
    barrier = np.sort(scores[~same])[::-1][int(0.1 * (~same).sum())]
    tar = mask["tar_at_far"][0]["strict"]["tar"]
    assert tar == np.mean(scores[same] > barrier + 1e-6)
    whole = found["ALL"].metrics["tar_at_far"][0]["strict"]["tar"]
    assert found["combined"].metrics["combined"] == pytest.approx(0.25 * tar + 0.75 * whole)
    assert "%" in PROTOCOLS["mfr"].row(found["combined"].metrics)["0.25 mask + 0.75 ALL"]
