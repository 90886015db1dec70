"""How often the images of a set are read on the way to what is found in it."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from tests.clean.test_duplicates import texture
from tests.helpers.feature_sources import MODEL, computed_features
from uniface_jax.clean.pipeline import measuring, read_set
from uniface_jax.clean.set_images import ImagesToClean
from uniface_jax.data.formats.images import encode_png
from uniface_jax.data.sources.folders import FolderSource
from uniface_jax.evaluate.kept_features import FeatureCache
from uniface_jax.files.own_folder import KnownDigests


class CountedSource(FolderSource):
    """Identity folders that count how often each image is read."""

    def __init__(self, path):
        super().__init__(path)
        self.reads = Counter()

    def __getitem__(self, index):
        self.reads[index] += 1
        return super().__getitem__(index)


@pytest.fixture
def folder(tmp_path):
    for number in range(20):
        file = tmp_path / "faces" / f"p{number % 3}" / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(encode_png(np.resize(texture(number), (112, 112, 3))))
    return tmp_path


def read(folder, model=MODEL, kept="kept"):
    """Return how often each image is read for features and measures; and both."""
    cache = FeatureCache(folder / kept, KnownDigests(folder / kept / "known"))
    source = CountedSource(folder / "faces")
    features = computed_features(folder / kept, model, batch_size=8)
    data, measures = read_set(ImagesToClean("dataset", source), features, measuring(None, cache))
    assert len(source.reads) == 20
    return set(source.reads.values()), np.array(data.features), np.array(measures)


def test_images_are_read_once_for_their_content_and_once_for_all_of_their_pixels(folder):
    reads, features, measures = read(folder)
    assert reads == {2}
    again, *kept = read(folder)  # the content alone: by it what is kept is known
    assert again == {1}
    # As each gives it by itself.
    images = ImagesToClean("dataset", FolderSource(folder / "faces"))
    alone = computed_features(folder / "alone").features(images).values
    measured = measuring(None, FeatureCache(folder / "a", KnownDigests(None))).features(images)
    for found, *others in ((features, kept[0], alone), (measures, kept[1], measured.values)):
        for other in others:
            np.testing.assert_array_equal(found, other)


def test_a_run_that_was_interrupted_goes_on_with_both(folder):
    batches = iter(range(2))

    def interrupted(images):
        if next(batches, None) is None:
            raise KeyboardInterrupt
        return MODEL.embed(images)

    with pytest.raises(KeyboardInterrupt):
        read(folder, replace(MODEL, embed=interrupted))
    seen = []

    def counted(images):
        seen.append(len(images))
        return MODEL.embed(images)

    reads, *found = read(folder, replace(MODEL, embed=counted))
    assert (reads, seen) == ({1, 2}, [8])  # of the first 16 the content alone
    for one, other in zip(found, read(folder, kept="anew")[1:], strict=True):
        np.testing.assert_array_equal(one, other)
