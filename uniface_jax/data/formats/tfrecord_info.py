"""Metadata of a TFRecord data set as TensorFlow Datasets writes it, read without TensorFlow.

dataset_info.json and features.json are plain JSON. The features must be those of training images,
and every shard that they list must be there; tfrecord_shards.py looks into the shards.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from uniface_jax.errors import UserError
from uniface_jax.files.bounded_json import MAX_BYTES, read_json
from uniface_jax.files.reading import read_regular

SPLIT = "train"
INFO_FILE = "dataset_info.json"
FEATURES_FILE = "features.json"
NAMES_FILE = "label.labels.txt"
DEFAULT_TEMPLATE = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
_MAX_CLASSES = (1 << 31) - 1  # labels are int32
_MAX_COUNT = 1 << 40  # images: more is no count, and does not fit where it is used
_MAX_NAME_LENGTH = 255  # of a file, nearly everywhere
_STRUCTURE_ERRORS = (KeyError, TypeError, ValueError, OverflowError, AttributeError)
_HINT = (
    f"a TFRecord data set has {INFO_FILE} and {FEATURES_FILE} "
    "(make one with python -m uniface_jax.convert)"
)


@dataclass(frozen=True)
class DatasetInfo:
    """A TFRecord data set by its metadata.

    Attributes:
        name: of the data set.
        path: its folder.
        split: which part of the data set this is.
        num_examples: N, records of the split.
        num_classes: C.
        shards: (path, number of records) in order.
        class_names: C names in label order, or None.
        image_shape: (height, width, channels), None where images differ or the set does not say.
        has_landmarks: True where every record has five landmarks, `landmarks` float32 [5, 2].
    """

    name: str
    path: Path
    split: str
    num_examples: int
    num_classes: int
    shards: list[tuple[Path, int]]
    class_names: list[str] | None
    image_shape: tuple[int, int, int] | None
    has_landmarks: bool = False


def read_dataset_info(path: Path | str, split: str = "train") -> DatasetInfo:
    """Read the metadata of the data set in folder `path`; TensorFlow is not imported.

    Raises:
        UserError: the metadata is missing or malformed, has no such split, is not of TFRecord files
            with the features `image` (an encoded image) and `label` (a class), or a shard is
            missing; the message names file and key.
    """
    path = Path(path)
    info_file, features_file = path / INFO_FILE, path / FEATURES_FILE
    info, features = read_json(info_file, _HINT), read_json(features_file, _HINT)
    try:
        file_format = info.get("fileFormat", "tfrecord")
        splits = {str(entry["name"]): entry for entry in info["splits"]}
        found = splits.get(split, {"shardLengths": []})
        counts = [int(count) for count in found["shardLengths"]]
        template = str(found.get("filepathTemplate", DEFAULT_TEMPLATE))
        name = str(info["name"])
    except _STRUCTURE_ERRORS as e:
        raise UserError(f"{info_file}: not the metadata of a data set ({e!r:.80})") from e
    if split not in splits:
        raise UserError(f"{info_file}: splits {sorted(splits)!s:.80}, expected one named {split!r}")
    if file_format != "tfrecord":
        raise UserError(
            f"{info_file}: fileFormat is {file_format!r:.80}, only tfrecord can be read"
        )
    if not counts or min(counts) < 0 or not 0 < sum(counts) <= _MAX_COUNT:
        raise UserError(f"{info_file}: shardLengths {counts!s:.80}, expected images in them")
    num_classes, class_names, shape = _read_features(path, features, features_file)
    shards: list[tuple[Path, int]] = []
    for number, count in enumerate(counts):
        file_name = _shard_name(template, name, split, number, len(counts))
        if not file_name.isprintable() or "/" in file_name or len(file_name) > _MAX_NAME_LENGTH:
            raise UserError(
                f"{info_file}: a shard called {file_name!r:.80}, expected a file's name"
            )
        if number and file_name == shards[0][0].name:
            raise UserError(
                f"{info_file}: filepathTemplate {template!r:.80} does not number shards"
            )
        file = path / file_name
        if not _is_file(file):
            raise UserError(
                f"{file}: missing; {INFO_FILE} lists {len(counts)} shards of {sum(counts)} images"
            )
        shards.append((file, count))
    return DatasetInfo(
        name, path, split, sum(counts), num_classes, shards, class_names, shape,
        has_landmarks=_has_landmarks(features),
    )  # fmt: skip


def _is_file(file: Path) -> bool:
    """Return True for a file that is there; a name too long for the file system is none."""
    try:
        return file.is_file()
    except OSError:  # a name that is too long for this file system
        return False


def _shard_name(template: str, name: str, split: str, number: int, total: int) -> str:
    """Return the file name of a shard by TFDS' template."""
    values = {
        "DATASET": name,
        "SPLIT": split,
        "FILEFORMAT": "tfrecord",
        "SHARD_INDEX": f"{number:05d}",
        "NUM_SHARDS": f"{total:05d}",
        "SHARD_X_OF_Y": f"{number:05d}-of-{total:05d}",
    }
    for key, value in values.items():  # not str.format: a template could ask for any width
        template = template.replace(f"{{{key}}}", value)
    return template


def _has_landmarks(features: Any) -> bool:
    """Return True where features.json lists five landmarks for every image."""
    feature = features["featuresDict"]["features"].get("landmarks")
    try:
        tensor = feature["tensor"]
        return (tensor["dtype"], tensor["shape"]["dimensions"]) == ("float32", ["5", "2"])
    except _STRUCTURE_ERRORS:
        return False


def _read_features(
    path: Path, features: Any, features_file: Path
) -> tuple[int, list[str] | None, tuple[int, int, int] | None]:
    """Return the number of classes, their names, and the images' shape by features.json."""
    try:
        by_name = features["featuresDict"]["features"]
        num_classes = int(by_name["label"]["classLabel"]["numClasses"])
        dimensions = by_name["image"]["image"]["shape"].get("dimensions", [])
        sizes = [int(size) for size in dimensions]
    except _STRUCTURE_ERRORS as e:
        raise UserError(
            f"{features_file}: expected the features image (an image) and label (a class label), "
            f"found another structure ({e!r:.80})"
        ) from e
    if not 1 <= num_classes <= _MAX_CLASSES:
        raise UserError(
            f"{features_file}: numClasses is {num_classes!s:.80}, expected 1 or more, in reason"
        )
    names = _read_names(path / NAMES_FILE, num_classes)
    known = len(sizes) == 3 and min(sizes) > 0
    return num_classes, names, (sizes[0], sizes[1], sizes[2]) if known else None


def _read_names(file: Path, num_classes: int) -> list[str] | None:
    """Return the classes' names, a line each; None where the data set has none."""
    if not file.is_file():
        return None
    try:
        names = read_regular(file, MAX_BYTES).decode("utf-8").split("\n")[:num_classes]
    except OSError as e:
        raise UserError(f"{file}: cannot be read ({e.strerror})") from e
    except UnicodeDecodeError as e:
        raise UserError(f"{file}: not UTF-8 text, at byte {e.start}") from e
    if len(names) != num_classes:
        raise UserError(f"{file}: {len(names)} names, expected {num_classes}")
    return names
