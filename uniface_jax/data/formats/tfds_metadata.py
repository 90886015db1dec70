"""Writes the metadata that makes a folder of TFRecord shards a TensorFlow Datasets data set."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from uniface_jax.data.formats.tfrecord_info import INFO_FILE

VERSION = "1.0.0"
METADATA_PREFIX = ".metadata."  # of the folder in which they are written first


def face_features(
    image_shape: Sequence[int | None], num_classes: int, class_names: Sequence[str] | None
) -> Any:
    """The tfds.features.FeaturesDict of `image`, `label` and `name`."""
    import tensorflow_datasets as tfds

    label = (
        tfds.features.ClassLabel(names=class_names)
        if class_names
        else tfds.features.ClassLabel(num_classes=num_classes)
    )
    return tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(shape=tuple(image_shape)),
            "label": label,
            "name": tfds.features.Text(),
        }
    )


def write_metadata(
    destination: Path,
    *,
    name: str,
    split: str,
    image_shape: Sequence[int | None],
    num_classes: int,
    class_names: Sequence[str] | None,
    shard_counts: Sequence[int],
    num_bytes: int,
    description: str,
) -> None:
    """Adds features.json, label names and, last of all, dataset_info.json to the shards' folder.

    image_shape: height, width, channels, None for what varies. num_bytes: of all shards.
    """
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.dataset_info import DatasetIdentity

    features = face_features(image_shape, num_classes, class_names)
    with tempfile.TemporaryDirectory(prefix=METADATA_PREFIX, dir=destination) as folder:
        info = tfds.core.DatasetInfo(
            builder=DatasetIdentity(
                name=name, version=tfds.core.Version(VERSION), data_dir=folder, module_name=""
            ),
            features=features,
            description=description,
            supervised_keys=("image", "label"),
        )
        info.set_file_format("tfrecord")
        template = tfds.core.ShardedFileTemplate(
            data_dir=folder, dataset_name=name, split=split, filetype_suffix="tfrecord"
        )
        shards = tfds.core.SplitInfo(
            name=split,
            shard_lengths=list(shard_counts),
            num_bytes=num_bytes,
            filename_template=template,
        )
        info.set_splits(tfds.core.splits.SplitDict([shards]))
        info.write_to_directory(folder)
        for file in sorted(Path(folder).iterdir(), key=lambda file: file.name == INFO_FILE):
            file.replace(destination / file.name)
