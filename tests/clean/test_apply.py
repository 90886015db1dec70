import numpy as np
import pytest

from uniface_jax.clean.apply import changes_of, cleaned
from uniface_jax.clean.findings import ACTIONS, NO_FACE, ONE_PERSON, SEVERAL, STRANGER, Finding
from uniface_jax.data.sources.synthetic import SyntheticSource
from uniface_jax.errors import UserError

LABELS = np.array([0, 0, 1, 1, 1, 1, 2, 3])
FOUND = [
    Finding(ONE_PERSON, 0.9, "", 2, other_label=0),
    Finding(ONE_PERSON, 0.9, "", 3, other_label=2),
    Finding(SEVERAL, 0.1, "", 1, 4, group=1),
    Finding(SEVERAL, 0.1, "", 1, 5, group=1),
    Finding(STRANGER, 0.1, "", 0, 1),
]


def test_chains_are_one_person_and_groups_apart_are_people():
    made = changes_of(LABELS, ["a", "b", "c", "d"], FOUND, list(ACTIONS))
    assert made.positions.tolist() == [0, 2, 3, 4, 5, 6, 7]
    assert made.class_names == ["a", "b", "b~1"]
    assert made.labels.tolist() == [0, 1, 1, 2, 2, 0, 0]
    assert made.merged == {"a": ["a", "c", "d"]}


def test_a_group_apart_joins_the_person_named():
    found = [Finding(SEVERAL, 0.1, "", 1, image, other_label=3, group=1) for image in (4, 5)]
    made = changes_of(LABELS, list("abcd"), found, [SEVERAL])
    assert made.labels.tolist() == [0, 0, 1, 1, 3, 3, 2, 3]
    assert made.class_names == list("abcd")


def test_only_the_kinds_asked_for_are_acted_on():
    made = changes_of(LABELS, list("abcd"), FOUND, [STRANGER])
    assert made.labels.tolist() == [0, 1, 1, 1, 1, 2, 3]


def test_classes_without_images_are_left_out_and_something_stays():
    found = [Finding(NO_FACE, 0, "", 2, 6)]
    assert changes_of(LABELS, list("abcd"), found, [NO_FACE]).class_names == list("abd")
    everything = [Finding(NO_FACE, 0, "", 0, image) for image in range(8)]
    with pytest.raises(UserError, match="no image would stay"):
        changes_of(LABELS, list("abcd"), everything, [NO_FACE])


def test_a_cleaned_source_has_the_images_that_stay_as_their_new_people():
    source = SyntheticSource(num_classes=4, num_images=8)
    labels = np.array([source[i].label for i in range(8)])
    changes = changes_of(labels, list("abcd"), FOUND, list(ACTIONS))
    made = cleaned(source, changes)
    assert [item.name for item in made] == [source[i].name for i in changes.positions.tolist()]
    assert [item.label for item in made] == changes.labels.tolist()
    assert made.class_names == changes.class_names
