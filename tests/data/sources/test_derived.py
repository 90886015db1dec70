"""Sources made of another one: each way of asking gives one answer."""

import numpy as np
import pytest

from uniface_jax.data.conversion.people import ChosenPeople
from uniface_jax.data.conversion.run import write_dataset
from uniface_jax.data.faces.landmark_tables import LandmarkedSource, LandmarkTable
from uniface_jax.data.formats.landmarks import TEMPLATE, from_pixels
from uniface_jax.data.input.label_noise import NoisyLabels
from uniface_jax.data.sources.derived import SelectedSource
from uniface_jax.data.sources.synthetic import SyntheticSource
from uniface_jax.data.sources.tfrecord import TFRecordSource

IMAGES, CLASSES = 12, 4


@pytest.fixture(scope="module")
def landmarked(tmp_path_factory):
    """A converted set, whose images come many at once, with landmarks that tell images apart."""
    folder = tmp_path_factory.mktemp("derived")
    write_dataset(SyntheticSource(CLASSES, IMAGES), folder / "set", name="set")
    points = from_pixels(TEMPLATE) + np.arange(IMAGES)[:, None, None] / 1000
    lines = [",".join(map(str, [place, *row.ravel()])) for place, row in enumerate(points)]
    (folder / "points.csv").write_text("idx\n" + "\n".join(lines))
    return LandmarkedSource(TFRecordSource(folder / "set"), LandmarkTable(folder / "points.csv"))


POSITIONS, LABELS = np.array([1, 4, 5, 11]), np.array([1, 0, 1, 0])
DERIVED = {
    "landmarks": lambda source: source,
    "noise": lambda source: NoisyLabels(source, 0.5, 0),
    "selected": lambda source: SelectedSource(source, POSITIONS, LABELS, ["a", "b"]),
    "people": lambda source: ChosenPeople(source, source.classes(np.arange(IMAGES)), [1, 3]),
    "noise of selected": lambda source: NoisyLabels(
        SelectedSource(source, POSITIONS, LABELS, ["a", "b"]), 1, 0
    ),
}


@pytest.mark.parametrize("kind", DERIVED)
def test_every_way_of_asking_gives_the_same(landmarked, kind):
    source = DERIVED[kind](landmarked)
    items, indices = [source[i] for i in range(len(source))], np.arange(len(source))[::-1]
    backwards = [items[i] for i in indices]
    labels = [item.label for item in backwards]
    assert source.classes(indices).tolist() == labels
    assert [source.item_name(i) for i in indices.tolist()] == [item.name for item in backwards]
    assert [source.part(indices)[k] for k in range(len(indices))] == backwards
    encoded, given = source.images(indices)
    assert [bytes(image) for image in encoded] == [item.image for item in backwards]
    assert given.tolist() == labels
    assert (source.sizes(indices) >= [len(item.image) for item in backwards]).all()
    points = source.landmarks(indices)
    names = [landmarked.item_name(i) for i in range(IMAGES)]
    origins = np.array([names.index(item.name) for item in backwards])
    np.testing.assert_array_equal(points, landmarked.landmarks(origins))
    assert source.has_landmarks
    assert max(labels) < source.num_classes


def test_fingerprints_tell_them_apart(landmarked):
    prints = [make(landmarked).fingerprint() for make in DERIVED.values()]
    assert len({*prints, landmarked.source.fingerprint()}) == len(DERIVED) + 1
