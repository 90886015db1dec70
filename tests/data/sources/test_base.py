"""Defaults of a source that defines nothing but its length and its items."""

import pickle

import numpy as np
import pytest

from uniface_jax.data.conversion.job import ConversionSettings
from uniface_jax.data.conversion.run import convert
from uniface_jax.data.conversion.verify import verify
from uniface_jax.data.formats import images
from uniface_jax.data.input.batches import train_batches
from uniface_jax.data.input.sampler import Sampler
from uniface_jax.data.sources.base import Item, Source
from uniface_jax.data.sources.tfrecord import TFRecordSource
from uniface_jax.errors import UserError


class Plain(Source):
    """Gray images of three classes; those of the numbers in `broken` cannot be read."""

    name, num_classes = "plain", 3

    def __init__(self, count=7, shade=10, broken=()):
        self.count, self.shade, self.broken = count, shade, broken

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        if index in self.broken:
            raise UserError(f"plain: image {index} is gone")
        pixels = np.full((112, 112, 3), self.shade * index, np.uint8)
        pixels[:index] = 255
        return Item(images.encode_png(pixels), index % 3, f"image {index}")


def test_what_is_not_known_is_none():
    source = Plain()
    assert source.class_names is source.image_shape is source.images(np.arange(3)) is None
    assert (source.notes, source.reopens_quickly) == ((), False)


def test_parts_and_sizes_are_those_of_the_items():
    source = Plain(broken=(4,))
    part = pickle.loads(pickle.dumps(source.part(np.array([5, 2]))))
    assert [part[i] for i in range(len(part))] == [source[5], source[2]]
    assert source.sizes(np.array([2, 4])).tolist() == [len(source[2].image), 0]


def test_fingerprints_tell_sources_apart():
    others = [Plain(), Plain(6), Plain(shade=11), Plain(broken=(2,)), Plain(broken=(3,))]
    assert len({source.fingerprint() for source in others}) == len(others)
    assert Plain().fingerprint() == Plain().fingerprint()


def test_length_and_items_must_be_there():
    class Empty(Source):
        name, num_classes = "empty", 1

    with pytest.raises(TypeError, match="abstract"):
        Empty()


def test_it_converts_and_trains(tmp_path):
    source = Plain()
    info = convert(source, tmp_path / "set", ConversionSettings("plain", shard_size=3))
    assert (info.num_examples, info.num_classes, info.class_names) == (7, 3, None)
    assert verify(source, tmp_path / "set").images == 7
    assert Plain(shade=11).fingerprint() != source.fingerprint()
    with pytest.raises(UserError, match="already holds a data set of fingerprint"):
        convert(Plain(shade=11), tmp_path / "set", ConversionSettings("plain", shard_size=3))
    settings = ConversionSettings("plain", on_error="skip")
    assert convert(Plain(broken=(2,)), tmp_path / "skip", settings).num_examples == 6
    sampler = Sampler(batch_size=7, seed=0)
    for trained in (source, TFRecordSource(tmp_path / "set")):
        batch = next(train_batches(trained, sampler, augment={"flip": False}))
        for pixels, label, index in zip(
            batch["image"], batch["label"], batch["index"], strict=True
        ):
            item = trained[int(index)]
            assert label == item.label
            np.testing.assert_array_equal(pixels, images.decode(item.image, item.name))
