"""TFRecord data sets that TensorFlow Datasets opens as they are: the writer, and a source.

A record is a tf.train.Example of `image` (the encoded bytes, untouched), `label` and `name`. Shards
appear under their final names when they are complete and the metadata comes last, so that a
half-written folder is never mistaken for a data set.
"""

import re
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from uniface_jax.data import images
from uniface_jax.data.dataset_info import INFO_FILE, DatasetInfo, read_dataset_info
from uniface_jax.data.examples import parse
from uniface_jax.data.files import replacing
from uniface_jax.data.items import Item, Source, digest
from uniface_jax.data.records import RecordReader, walk_shard, write_index
from uniface_jax.data.tfds_metadata import write_metadata
from uniface_jax.errors import UserError

TENSORFLOW_FORMATS = ("JPEG", "PNG")  # what both TensorFlow's and TFDS' decoders take
SPLIT = "train"
_THREADS = 4
_BLOCK = 256


class TFRecordSource:
    """A TFRecord data set as a source, in the order of its records.

    Opening reads metadata and index only; raises UserError as read_dataset_info and RecordReader.
    Item names are the records' `name`, or their position where a set has none.
    """

    def __init__(self, path: Path, split: str = SPLIT):
        self.info: DatasetInfo = read_dataset_info(path, split)
        self.name = str(path)
        self.notes: list[str] = []
        self.num_classes = self.info.num_classes
        self.class_names = self.info.class_names
        self._records = RecordReader(self.info)

    def __reduce__(self) -> tuple[Any, ...]:
        return TFRecordSource, (self.info.path, self.info.split)  # memory maps do not travel

    def __len__(self) -> int:
        return self.info.num_examples

    def __getitem__(self, index: int) -> Item:
        where = f"{self.name}: record {index}"
        try:
            image, label, name = parse(self._records[index])
        except UserError:
            raise
        except ValueError as e:
            raise UserError(f"{where}: not an example of an image and a label ({e})") from e
        if not 0 <= label < self.num_classes:
            raise UserError(f"{where}: label {label}, expected 0..{self.num_classes - 1}")
        return Item(image, label, str(index) if name is None else name.decode("utf-8", "replace"))

    def part(self, indices: np.ndarray) -> "TFRecordPart":
        """The records at `indices`, int64 [K]."""
        return TFRecordPart(self, indices)

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


class TFRecordPart:
    """The records `indices`, int64 [K], of a TFRecord data set."""

    def __init__(self, source: TFRecordSource, indices: np.ndarray):
        self._source, self._indices = source, indices

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> Item:
        return self._source[int(self._indices[index])]


def write_dataset(
    source: Source,
    destination: Path | str,
    *,
    name: str,
    seed: int = 0,
    shard_size: int = 20_000,
    description: str = "",
) -> DatasetInfo:
    """Writes `source` to the folder `destination` as a data set with one split, train.

    The order is shuffled once by `seed`; every shard but the last holds `shard_size` images. Every
    image is decoded once to prove that it is one. Same source, seed and size: the same bytes.

    Raises UserError when `destination` already holds a data set, when `name` is not of letters,
    digits and underscores beginning with a letter, and, naming the image, when one cannot be
    decoded or is neither JPEG nor PNG; nothing that looks like a data set is left then.
    """
    destination = Path(destination)
    check_destination(destination)
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name):
        raise UserError(f"name {name!r}: a data set's name is letters, digits and underscores")
    if shard_size < 1:
        raise UserError(f"shard_size {shard_size}: expected 1 or more")
    order = np.random.RandomState(seed).permutation(len(source))
    blocks = [order[i : i + shard_size] for i in range(0, len(order), shard_size)]
    files = [
        destination / f"{name}-{SPLIT}.tfrecord-{number:05d}-of-{len(blocks):05d}"
        for number in range(len(blocks))
    ]
    shapes: set[tuple[int, int]] = set()
    bounds = []
    progress = tqdm(
        total=len(order), unit=" images", desc="convert", disable=not sys.stderr.isatty()
    )
    with progress:
        for file, indices in zip(files, blocks, strict=True):
            shapes |= _write_shard(source, indices, file, progress)
            bounds.append(walk_shard(file, len(indices)))
    write_index(destination, bounds)
    write_metadata(
        destination,
        name=name,
        split=SPLIT,
        image_shape=(*next(iter(shapes)), 3) if len(shapes) == 1 else (None, None, 3),
        num_classes=source.num_classes,
        class_names=source.class_names,
        shard_counts=[len(indices) for indices in blocks],
        num_bytes=sum(file.stat().st_size for file in files),
        description=description,
    )
    return read_dataset_info(destination)


def check_destination(destination: Path) -> None:
    """Raises UserError when `destination` is a file or already holds a data set."""
    if destination.exists() and not destination.is_dir():
        raise UserError(f"{destination}: a file; expected a folder, or nothing")
    if (destination / INFO_FILE).exists():
        raise UserError(f"{destination}: already holds a data set; remove it first")


def _write_shard(
    source: Source, indices: np.ndarray, file: Path, progress: Any
) -> set[tuple[int, int]]:
    """Writes one shard; returns the sizes (height, width) of its images."""
    import tensorflow as tf

    def read(index: np.integer) -> tuple[Item, tuple[int, int]]:
        item = source[int(index)]
        where = f"{source.name}: {item.name}"
        kind, height, width = images.check(item.image, where)
        if kind not in TENSORFLOW_FORMATS:
            raise UserError(
                f"{where}: {kind}, but TFRecord data sets hold JPEG or PNG, since TensorFlow reads "
                "no other; python -m uniface_jax.align writes PNG"
            )
        return item, (height, width)

    shapes = set()
    with (
        replacing(file) as temporary,
        tf.io.TFRecordWriter(str(temporary)) as writer,
        ThreadPoolExecutor(_THREADS) as pool,
    ):
        # In blocks, so that the pool never reads far ahead of the disk.
        for start in range(0, len(indices), _BLOCK):
            for item, shape in pool.map(read, indices[start : start + _BLOCK]):
                shapes.add(shape)
                writer.write(_example(item))
                progress.update()
    return shapes


def _example(item: Item) -> bytes:
    import tensorflow as tf

    def of_bytes(value: bytes) -> Any:
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))

    features = {
        "image": of_bytes(item.image),
        "label": tf.train.Feature(int64_list=tf.train.Int64List(value=[item.label])),
        "name": of_bytes(item.name.encode("utf-8", "surrogateescape")),
    }
    example = tf.train.Example(features=tf.train.Features(feature=features))
    return example.SerializeToString(deterministic=True)
