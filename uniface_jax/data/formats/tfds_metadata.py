"""Metadata that makes a folder of TFRecord shards a TensorFlow Datasets data set, written.

The files are those that TensorFlow Datasets 4.9 itself writes, to the byte; TensorFlow, over a
gigabyte, is needed neither here nor where training reads them.
"""

import json
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from uniface_jax.data.formats.tfrecord_info import (
    DEFAULT_TEMPLATE,
    FEATURES_FILE,
    INFO_FILE,
    NAMES_FILE,
)
from uniface_jax.files.atomic import write_bytes

VERSION = "1.0.0"
FEATURE_CLASSES = "tensorflow_datasets.core.features"


@dataclass(frozen=True)
class Metadata:
    """A data set of one split, described.

    Attributes:
        image_shape: height, width, channels, None for what varies.
        class_names: C names in label order, or None.
        shard_counts: images a shard.
        num_bytes: of all shards.
        landmarks: True where every record has five landmarks.
    """

    name: str
    split: str
    image_shape: Sequence[int | None]
    num_classes: int
    class_names: Sequence[str] | None
    shard_counts: Sequence[int]
    num_bytes: int
    description: str
    landmarks: bool = False


def write_metadata(destination: Path, metadata: Metadata) -> None:
    """Add label names, features.json and, last of all, dataset_info.json to the shards' folder."""
    for name, content in metadata_files(metadata).items():
        write_bytes(destination / name, content)


def metadata_files(metadata: Metadata) -> dict[str, bytes]:
    """Return the contents of the files that describe a data set, dataset_info.json last."""
    files = {}
    if metadata.class_names:
        files[NAMES_FILE] = "".join(f"{name}\n" for name in metadata.class_names).encode()
    files[FEATURES_FILE] = json.dumps(_features(metadata), indent=4, sort_keys=True).encode()
    files[INFO_FILE] = json.dumps(_info(metadata), indent=2, sort_keys=True).encode()
    return files


def _features(metadata: Metadata) -> dict[str, Any]:
    """Return the features image, label, name and landmarks; counts are strings, as protobuf's."""
    dimensions = ["-1" if size is None else str(size) for size in metadata.image_shape]
    features: dict[str, Any] = {
        "image": {
            "pythonClassName": f"{FEATURE_CLASSES}.image_feature.Image",
            "image": {"dtype": "uint8", "shape": {"dimensions": dimensions}},
        },
        "label": {
            "pythonClassName": f"{FEATURE_CLASSES}.class_label_feature.ClassLabel",
            "classLabel": {"numClasses": str(metadata.num_classes)},
        },
        "name": {"pythonClassName": f"{FEATURE_CLASSES}.text_feature.Text", "text": {}},
    }
    if metadata.landmarks:
        features["landmarks"] = {
            "pythonClassName": f"{FEATURE_CLASSES}.tensor_feature.Tensor",
            "tensor": {
                "shape": {"dimensions": ["5", "2"]}, "dtype": "float32", "encoding": "none",
            },
        }  # fmt: skip
    return {
        "pythonClassName": f"{FEATURE_CLASSES}.features_dict.FeaturesDict",
        "featuresDict": {"features": features},
    }


def _info(metadata: Metadata) -> dict[str, Any]:
    """Return the contents of dataset_info.json; protobuf's JSON leaves out what is empty or 0."""
    split = {
        "name": metadata.split,
        "filepathTemplate": DEFAULT_TEMPLATE,
        "shardLengths": [str(count) for count in metadata.shard_counts],
    }
    if metadata.num_bytes:
        split["numBytes"] = str(metadata.num_bytes)
    info: dict[str, Any] = {
        "name": metadata.name,
        "version": VERSION,
        "fileFormat": "tfrecord",
        "splits": [split],
        "supervisedKeys": {"tuple": {"items": [{"featureKey": k} for k in ("image", "label")]}},
    }
    if description := textwrap.dedent(metadata.description).strip():
        info["description"] = description
    return info
