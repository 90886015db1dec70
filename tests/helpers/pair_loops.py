"""All pairs of a few images by a loop, and metrics checked against it."""

from itertools import combinations

import numpy as np
import pytest


def split(names, features):
    """Scores of same and of different pairs of the images `names`, by a loop."""
    same, different = [], []
    for a, b in combinations(names, 2):
        kind = same if a.rsplit("/", 1)[0] == b.rsplit("/", 1)[0] else different
        kind.append(features[a] @ features[b])
    return np.array(same), np.array(different)


def check(metrics, same, different, far):
    """TAR and counts at `far`; float32 scores may exchange those that agree to 1e-5."""
    assert (metrics["same"], metrics["different"]) == (len(same), len(different))
    (entry,) = metrics["tar_at_far"]
    barrier = np.sort(different)[::-1][int(far * len(different))]
    assert entry["strict"]["tar"] == np.mean(same > barrier)
    assert entry["strict"]["false_accepts"] == np.count_nonzero(different > barrier)
    wins = np.mean([a > b for a in same for b in different])
    assert metrics["auc"]["lower"] == pytest.approx(wins, abs=1e-3)
