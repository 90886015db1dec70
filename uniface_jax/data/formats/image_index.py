"""Where the images of a converted data set lie in its shards, and their labels.

`image_index.npy` beside the shards has a row an image, in the order of the records; convert writes
it. With it a batch's images are found by a few array operations: parsing records one by one takes
Python as long as it may take beside decoding, and it takes turns in that with the other threads. A
data set without the file, or with one that does not fit its shards, is read record by record.
"""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np

from uniface_jax.data.formats.tfrecord_info import DatasetInfo
from uniface_jax.files.arrays import map_array, save_array

IMAGE_INDEX_FILE = "image_index.npy"
# begin: of the encoded image, in its shard, bytes. size: bytes. label: 0..C-1.
ROW_DTYPE = np.dtype([("begin", "<u8"), ("size", "<u4"), ("label", "<i4")])


def image_rows(begins: np.ndarray, sizes: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the rows of a shard's K images, ROW_DTYPE [K].

    begins, sizes, labels: integers [K], see ROW_DTYPE.
    """
    rows = np.empty(len(begins), ROW_DTYPE)
    rows["begin"], rows["size"], rows["label"] = begins, sizes, labels
    return rows


def write_image_index(path: Path, shards: Sequence[np.ndarray]) -> None:
    """Write the index of the data set in folder `path` from its shards' rows, atomically."""
    save_array(path / IMAGE_INDEX_FILE, np.concatenate(shards))


def read_image_index(info: DatasetInfo, bounds: Sequence[np.ndarray]) -> np.ndarray | None:
    """Return the rows of all images, memory-mapped; None where there is no index that fits.

    The number of rows must be right, and each shard's last image lie in its last record.
    Any other fault of an index is found when an image is decoded, and in its labels by convert's
    --verify.

    Args:
        info: the data set.
        bounds: for each shard where its records begin, and its end.
    """
    index = map_array(info.path / IMAGE_INDEX_FILE, ROW_DTYPE, info.num_examples)
    if index is None:
        return None
    starts = np.cumsum([0] + [count for _, count in info.shards])
    for (first, end), places in zip(pairwise(starts), bounds, strict=True):
        if first < end:
            begin, size, _ = index[end - 1].item()
            if not int(places[-2]) < begin < begin + size < int(places[-1]):
                return None
    return index
