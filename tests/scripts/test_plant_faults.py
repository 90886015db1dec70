import numpy as np
import pytest
from clean_lfw import row
from plant_faults import (
    COPIED_SHARE,
    MERGED,
    NO_FACES,
    PERMUTED_SHARE,
    SPLIT,
    near_copy,
    no_face,
    plant_labels,
)

from tests.clean.test_duplicates import texture
from uniface_jax.clean.duplicates import SAME_PHOTOGRAPH, photograph_likeness


@pytest.mark.parametrize("seed", [0, 1])
def test_planted_labels_are_the_faults_that_the_plan_names(seed):
    labels = np.repeat(np.arange(300), np.r_[np.full(140, 12), np.full(160, 2)])
    planted = plant_labels(labels, seed)
    count = len(labels)
    assert len(planted.permuted) == round(PERMUTED_SHARE * count)
    assert len(planted.copies) == round(COPIED_SHARE * count)
    assert len(planted.no_faces) == NO_FACES
    assert len(planted.labels) == count + len(planted.copies) + NO_FACES
    kept = np.setdiff1d(np.arange(count), planted.permuted)
    people = [set(labels[kept][planted.labels[kept] == host]) for host in planted.merged]
    assert [len(p) for p in people] == [2] * MERGED
    for one, other in planted.split:
        both = np.isin(planted.labels[kept], [one, other])
        assert len(set(labels[kept][both])) == 1
    assert len(planted.split) == SPLIT
    # Nobody permuted keeps the label that the merged and split people's plan gives.
    host_of = {int(labels[i]): int(planted.labels[i]) for i in kept}
    halves = set(planted.split.ravel().tolist())
    for image in planted.permuted:
        given = int(planted.labels[image])
        wanted = host_of.get(int(labels[image]))  # None: nobody else of that person is left
        assert given != wanted or wanted in halves


def test_a_near_copy_is_one_photograph_and_no_face_is_an_image():
    rng = np.random.default_rng(0)
    face = texture(3)
    assert photograph_likeness(face, near_copy(face, rng)) > SAME_PHOTOGRAPH
    for _ in range(12):
        image = no_face([face], rng)
        assert (image.shape, image.dtype) == ((112, 112, 3), np.uint8)


def test_rates_are_those_of_the_sets():
    found = row("strangers", [1, 2, 3, 4], {1, 2, 3, 7, 8, 9}, {8}, wrong=[1, 2, 3, 4, 7])
    assert (found["recall"], found["precision"]) == (0.75, 4 / 6)
    assert found["precision_own_left_out"] == 4 / 5
