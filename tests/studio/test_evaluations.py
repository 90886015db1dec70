"""What an evaluation's set tells of every threshold, by counting."""

import json

import numpy as np
import pytest

from tests.studio.conftest import HOSTILE
from uniface_jax.studio.evaluations import SetName, points_of, sets_of, shown_set

AT = SetName("pairs", "faces")


def check_counts(points, scores, same, slack=0.0):
    """Check the counts at each point, its cosine rounded by no more than `slack`."""
    rows = list(zip(points["cosine"], points["same"], points["different"], strict=True))
    assert [row[0] for row in rows] == sorted({row[0] for row in rows}, reverse=True)
    for cosine, accepted, wrong in rows:
        for kind, found in ((same, accepted), (~same, wrong)):
            low, high = (np.sum(scores[kind] >= cosine + by) for by in (slack, -slack))
            assert low <= found <= high


@pytest.mark.parametrize("left_out", ["", "scores", "counts"])
def test_counts_at_each_point_are_those_of_the_scores(run, scores, left_out):
    drawings = {k: v for k, v in run.drawings["pairs"]["faces"].items() if k != left_out}
    totals, points = points_of(drawings)
    assert totals == (100, 300)
    assert len(points["cosine"]) > 50
    check_counts(points, *scores, slack=1e-6 if left_out != "scores" else 0.0)


def test_a_histogram_of_a_sample_is_not_counted(run):
    drawings = dict(run.drawings["pairs"]["faces"])
    half = [count // 2 for count in drawings["scores"]["different"]]
    drawings["scores"] = {**drawings["scores"], "different": half}
    totals, points = points_of(drawings)
    assert totals == (100, 300)
    assert points["cosine"] == drawings["counts"]["thresholds"]


@pytest.mark.parametrize(
    "scores",
    [
        {"edges": [0, 1], "same": [0], "different": [5], "thresholds": {}},
        {"edges": [0, 1], "same": [0], "different": [0], "thresholds": {}},
        None,
    ],
)
def test_a_set_of_one_kind_alone_has_no_points(scores):
    totals, points = points_of({"scores": scores} if scores else {})
    assert not all(totals)
    assert points == {"cosine": [], "same": [], "different": []}


def test_a_set_is_shown_with_its_names_as_text(run):
    assert sets_of(run) == [AT]
    shown = json.loads(json.dumps(shown_set(run, AT), allow_nan=False))
    assert (shown["name"], shown["same"], shown["different"]) == ("pairs/faces", 100, 300)
    assert shown["start"] == 0.4
    assert shown["notes"] == ["too few pairs for FAR 1e-05"]
    first, second = shown["pairs"]["different"][0]["sides"]
    assert first["label"] == HOSTILE.replace("\u202e", "\\u202e")
    assert (first["picture"], second["picture"]) == ("/9j/4AAQ", None)
