"""Indexed sources: columns taken together, and shared with other processes instead of copied."""

import pickle
from dataclasses import dataclass

import numpy as np
from typing_extensions import override

from uniface_jax.data.sources.base import Item
from uniface_jax.data.sources.indexed import Part, SharedSource
from uniface_jax.data.sources.names import Names
from uniface_jax.files.unnamed import UnnamedFile


@dataclass(frozen=True)
class Zeros(Part):
    value: bytes
    lengths: np.ndarray
    names: Names

    @override
    def __getitem__(self, index):
        return Item(self.value * int(self.lengths[index]), 0, self.names[index])


class ZeroSource(SharedSource):
    name, num_classes = "zeros", 1

    def __init__(self, count):
        names = Names(f"image {i}" for i in range(count))
        self._unpacked = [UnnamedFile("a test")]
        self._images = Zeros(b"0", np.arange(count), names)


def test_a_part_has_all_columns_of_its_images_and_what_they_share():
    source = ZeroSource(9)
    part = source.part(np.array([7, 2]))
    assert list(part) == [source[7], source[2]]
    assert part.value == b"0"
    assert len(part) == 2
    np.testing.assert_array_equal(source.sizes(np.array([7, 2])), part.sizes(np.arange(2)))


def test_a_pickled_copy_is_small_and_equal_and_can_be_pickled_again():
    source = ZeroSource(5000)
    pickled = pickle.dumps(source)
    assert len(pickled) < 5000
    copy = pickle.loads(pickled)
    again = pickle.loads(pickle.dumps(copy))
    for other in (copy, again):
        assert len(other) == 5000
        assert [other[i] for i in (0, 4999)] == [source[i] for i in (0, 4999)]
    assert not copy._unpacked
    assert source._unpacked
