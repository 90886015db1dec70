import numpy as np

from tests.clean.test_people import faces
from uniface_jax.clean.find import Limits, duplicate_findings, measure_findings, people_findings
from uniface_jax.clean.findings import (
    BLURRED,
    EXACT,
    LOW_QUALITY,
    NEAR,
    NO_FACE,
    ONE_PERSON,
    SEVERAL,
    STRANGER,
    TURNED,
)
from uniface_jax.clean.people import group_people
from uniface_jax.clean.scale import estimate_scale
from uniface_jax.evaluate.all_pairs.above import PairsFound


def found_in(features, labels):
    scale = estimate_scale(features, labels)
    people = group_people(features, labels, int(labels.max()) + 1, scale.threshold)
    return people_findings(features, labels, people, scale, Limits())


def test_planted_people_are_found_and_nothing_else():
    features, labels = faces(np.random.default_rng(0), 20, 12, width=256)
    given = labels.copy()
    given[labels == 1] = 0  # two people under one label
    given[np.flatnonzero(labels == 2)[:6]] = 20  # one under two
    swapped = [int(np.flatnonzero(labels == p)[0]) for p in (5, 6)]
    given[swapped] = [6, 5]
    findings = found_in(features, given)
    assert {f.kind for f in findings} == {ONE_PERSON, SEVERAL, STRANGER}
    (one,) = (f for f in findings if f.kind == ONE_PERSON)
    assert {one.label, one.other_label} == {2, 20}
    apart = {f.image for f in findings if f.kind == SEVERAL}
    assert apart in [set(np.flatnonzero(labels == p)) for p in (0, 1)]
    named = {f.image: f.other_label for f in findings if f.kind == STRANGER}
    assert named == {swapped[0]: 5, swapped[1]: 6}


def test_a_clean_set_has_no_findings():
    assert found_in(*faces(np.random.default_rng(1), 20, 8, width=256)) == []


def test_of_a_photograph_of_two_people_the_one_stays_who_is_more_like_it():
    labels = np.array([0, 1, 0, 0])
    originals = np.array([0, 0, 2, 3])
    copies = PairsFound(np.array([2, 0]), np.array([3, 1]), np.array([0.97, 1.0], "f"))
    exact, near = duplicate_findings(labels, originals, copies, np.array([0.2, 0.7, 0.5, np.nan]))
    assert (exact.kind, exact.image, exact.other_image, exact.other_label) == (EXACT, 0, 1, 1)
    assert (near.kind, near.image, near.other_image) == (NEAR, 3, 2)
    assert "another person" in exact.reason
    assert "another person" not in near.reason


def test_images_are_judged_by_their_measures():
    good = [1.0, 100.0, 40.0, 0.9, 0.1]
    rows = {
        NO_FACE: [1.0, 100.0, 40.0, 0.2, 0.0],
        BLURRED: [1.0, 5.0, 40.0, 0.9, 0.1],
        TURNED: [1.0, 100.0, 40.0, 0.9, 0.6],
    }
    measures = np.array([*[good] * 20, *rows.values(), good, [1.0, 0, 0, -1.0, 0]], np.float32)
    lengths = np.random.default_rng(0).uniform(9, 11, 25)
    lengths[23] = 1.0
    found = measure_findings(np.zeros(25, int), measures, lengths, Limits())
    assert {(f.kind, f.image) for f in found} == {
        (NO_FACE, 20), (BLURRED, 21), (TURNED, 22), (LOW_QUALITY, 23), (NO_FACE, 24)
    }  # fmt: skip
