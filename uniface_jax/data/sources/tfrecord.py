"""TFRecord data sets that TensorFlow Datasets opens as they are, as a source.

A record is a tf.train.Example of `image` (the encoded bytes, untouched), `label` and `name`.
"""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from uniface_jax.data.formats.image_index import read_image_index
from uniface_jax.data.formats.tf_example import parse
from uniface_jax.data.formats.tfrecord_info import SPLIT, DatasetInfo, read_dataset_info
from uniface_jax.data.formats.tfrecord_shards import RecordReader
from uniface_jax.data.sources.base import Item, Source, digest
from uniface_jax.errors import UserError


class TFRecordSource(Source):
    """A TFRecord data set as a source, in the order of its records.

    Opening reads metadata and index only; raises UserError as read_dataset_info and RecordReader.
    Item names are the records' `name`, or their position where a set has none.
    """

    reopens_quickly = True

    def __init__(self, path: Path, split: str = SPLIT):
        self.info: DatasetInfo = read_dataset_info(path, split)
        self.name = str(path)
        self.num_classes = self.info.num_classes
        self.class_names = self.info.class_names
        self.image_shape = self.info.image_shape
        self._records = RecordReader(self.info)
        self._images = read_image_index(self.info, self._records.bounds)

    def __reduce__(self) -> tuple[Any, ...]:
        return TFRecordSource, (self.info.path, self.info.split)  # memory maps do not travel

    def __len__(self) -> int:
        return self.info.num_examples

    def __getitem__(self, index: int) -> Item:
        try:
            image, label, name = parse(self._records[index])
        except UserError:
            raise
        except ValueError as e:
            raise UserError(
                f"{self.name}: record {index}: not an example of an image and a label ({e})"
            ) from e
        if not 0 <= label < self.num_classes:
            raise UserError(
                f"{self.name}: record {index} has the label {label}, "
                f"expected 0..{self.num_classes - 1}"
            )
        return Item(image, label, str(index) if name is None else name.decode("utf-8", "replace"))

    def images(self, indices: np.ndarray) -> tuple[list[memoryview], np.ndarray] | None:
        """The encoded images at `indices`, int64 [K], and their labels, int32 [K], by the index.

        Several times as fast as items; None where the data set has no index of its images. The
        bytes are those of the files and not copied; neither they nor the labels are checked.
        """
        if self._images is None:
            return None
        rows = self._images[indices]
        return self._records.cuts(indices, rows["begin"], rows["size"]), rows["label"]

    def sizes(self, indices: np.ndarray) -> np.ndarray:
        """The length of the records at `indices`."""
        return self._records.sizes(indices)

    def fingerprint(self) -> str:
        """Of the shards' lengths; records of the same lengths are not told apart."""
        counts = np.array([count for _, count in self.info.shards])
        lengths = (
            self._records.sizes(np.arange(*part)) for part in pairwise([0, *np.cumsum(counts)])
        )
        return digest(counts, *lengths)
