"""TFRecord data sets that TensorFlow Datasets opens as they are, as a source.

A record is a tf.train.Example of `image` (the encoded bytes, untouched), `label`, `name` and, where
the data set has them, `landmarks`.
"""

from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from typing_extensions import override

from uniface_jax.data.formats.image_index import IMAGE_INDEX_FILE, read_image_index
from uniface_jax.data.formats.landmarks import POINTS, checked
from uniface_jax.data.formats.seal import check_indices
from uniface_jax.data.formats.tf_example import (
    AFTER_IMAGE_BYTES,
    landmarks_behind,
    parse,
    parse_landmarks,
)
from uniface_jax.data.formats.tfrecord_info import SPLIT, DatasetInfo, read_dataset_info
from uniface_jax.data.formats.tfrecord_shards import INDEX_FILE, RecordReader
from uniface_jax.data.sources.base import Item, Source, digest
from uniface_jax.errors import UserError
from uniface_jax.files.arrays import is_cut_short


class TFRecordSource(Source):
    """A TFRecord data set as a source, in the order of its records.

    Opening reads metadata and index only; raises UserError as read_dataset_info and RecordReader.
    Item names are the records' `name`, or their position where a set has none.
    """

    reopens_quickly = True

    def __init__(self, path: Path, split: str = SPLIT, *, checked: bool = False):
        """Open the data set; checked: its indices were compared with the manifest before."""
        if not checked:
            check_indices(Path(path), (INDEX_FILE, IMAGE_INDEX_FILE))
        self.info: DatasetInfo = read_dataset_info(path, split)
        self.name = str(path)
        self.num_classes = self.info.num_classes
        self.class_names = self.info.class_names
        self.image_shape = self.info.image_shape
        self.has_landmarks = self.info.has_landmarks
        self._records = RecordReader(self.info)
        self._images = read_image_index(self.info, self._records.bounds)

    def __reduce__(self) -> tuple[Any, ...]:
        # Memory maps do not travel, and are not looked at again in each process.
        return partial(TFRecordSource, checked=True), (self.info.path, self.info.split)

    @override
    def __len__(self) -> int:
        return self.info.num_examples

    @override
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

    @override
    def images(self, indices: np.ndarray) -> tuple[list[bytes], np.ndarray] | None:
        if self._images is None:
            return None
        if is_cut_short(self._images):
            raise UserError(f"{self.info.path / IMAGE_INDEX_FILE}: cut short while it was read")
        rows = self._images[indices]
        return self._records.cuts(indices, rows["begin"], rows["size"]), rows["label"]

    @override
    def classes(self, indices: np.ndarray) -> np.ndarray:
        if self._images is None or is_cut_short(self._images):
            return super().classes(indices)
        found: np.ndarray = self._images[indices]["label"]
        return found

    @override
    def landmarks(self, indices: np.ndarray) -> np.ndarray:
        if not self.has_landmarks:
            return super().landmarks(indices)
        behind = [b""] * len(indices)
        if self._images is not None and not is_cut_short(self._images):
            rows = self._images[indices]
            begins = rows["begin"] + rows["size"]
            behind = self._records.cuts(
                indices, begins, np.full(len(indices), AFTER_IMAGE_BYTES, np.int64)
            )
        found = np.empty((len(indices), POINTS, 2), np.float32)
        for place, index in enumerate(indices.tolist()):
            points = landmarks_behind(behind[place])
            found[place] = checked(
                self._landmarks(index) if points is None else points,
                f"{self.name}: record {index}",
            )
        return found

    def _landmarks(self, index: int) -> np.ndarray | None:
        """Return the landmarks of a record, read whole; None where it has none."""
        try:
            return parse_landmarks(self._records[index])
        except UserError:
            raise
        except ValueError as e:
            raise UserError(f"{self.name}: record {index}: {e}") from e

    @override
    def sizes(self, indices: np.ndarray) -> np.ndarray:
        return self._records.sizes(indices)

    @override
    def fingerprint(self) -> str:
        # Records of the same lengths are not told apart: no image is read for it.
        counts = np.array([count for _, count in self.info.shards])
        lengths = (
            self._records.sizes(np.arange(*part)) for part in pairwise([0, *np.cumsum(counts)])
        )
        return digest(counts, *lengths)
