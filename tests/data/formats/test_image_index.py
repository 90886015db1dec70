"""The index of a data set's images: read where it fits the shards, None where it does not."""

import numpy as np

from uniface_jax.data.formats.image_index import (
    IMAGE_INDEX_FILE,
    image_rows,
    read_image_index,
    write_image_index,
)
from uniface_jax.data.formats.tfrecord_info import DatasetInfo

BOUNDS = [np.array([0, 10, 30], np.uint64), np.array([0], np.uint64), np.array([0, 9], np.uint64)]


def test_rows_come_back_where_they_fit(tmp_path):
    shards = [(tmp_path / str(number), count) for number, count in enumerate((2, 0, 1))]
    info = DatasetInfo("n", tmp_path, "train", 3, 5, shards, None, None)
    assert read_image_index(info, BOUNDS) is None
    rows = [
        image_rows(np.array([2, 15]), np.array([5, 12]), np.array([4, 0])),
        image_rows(np.array([]), np.array([]), np.array([])),
        image_rows(np.array([1]), np.array([7]), np.array([3])),
    ]
    write_image_index(tmp_path, rows)
    found = read_image_index(info, BOUNDS)
    assert found.tolist() == [(2, 5, 4), (15, 12, 0), (1, 7, 3)]
    for key, value in (("begin", 9), ("begin", 30), ("size", 15), ("size", 0)):
        wrong = np.array(found)
        wrong[key][1] = value  # the last image of the first shard, outside of its record
        np.save(tmp_path / IMAGE_INDEX_FILE, wrong)
        assert read_image_index(info, BOUNDS) is None
    np.save(tmp_path / IMAGE_INDEX_FILE, np.array(found)[:2])
    assert read_image_index(info, BOUNDS) is None
