import dataclasses
from pathlib import Path

import numpy as np
import pytest

from uniface_jax.data.formats.tfds_metadata import VERSION, Metadata, write_metadata
from uniface_jax.data.formats.tfrecord_info import INFO_FILE

METADATA = Metadata(
    name="faces",
    split="train",
    image_shape=(112, 112, 3),
    num_classes=2,
    class_names=["Zoë", "a b"],
    shard_counts=[3, 4],
    num_bytes=10**12,
    description='  Of "Zoë"\n  </>\u2028\x7f and 😀\n',
)
LANDMARKS = dataclasses.replace(METADATA, landmarks=True)
UNKNOWN = Metadata("x", "train", (None, None, 3), 85742, None, [1], 0, "")


def write_by_tfds(destination: Path, metadata: Metadata) -> None:
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.dataset_info import DatasetIdentity

    label = (
        tfds.features.ClassLabel(names=metadata.class_names)
        if metadata.class_names
        else tfds.features.ClassLabel(num_classes=metadata.num_classes)
    )
    points = tfds.features.Tensor(shape=(5, 2), dtype=np.float32)
    landmarks = {"landmarks": points} if metadata.landmarks else {}
    identity = DatasetIdentity(
        name=metadata.name,
        version=tfds.core.Version(VERSION),
        data_dir=str(destination),
        module_name="",
    )
    info = tfds.core.DatasetInfo(
        builder=identity,
        features=tfds.features.FeaturesDict(
            {
                "image": tfds.features.Image(shape=tuple(metadata.image_shape)),
                "label": label,
                "name": tfds.features.Text(),
                **landmarks,
            }
        ),
        description=metadata.description,
        supervised_keys=("image", "label"),
    )
    info.set_file_format("tfrecord")
    template = tfds.core.ShardedFileTemplate(
        data_dir=str(destination),
        dataset_name=metadata.name,
        split=metadata.split,
        filetype_suffix="tfrecord",
    )
    split = tfds.core.SplitInfo(
        name=metadata.split,
        shard_lengths=list(metadata.shard_counts),
        num_bytes=metadata.num_bytes,
        filename_template=template,
    )
    info.set_splits(tfds.core.splits.SplitDict([split]))
    info.write_to_directory(destination)


def contents(folder: Path) -> dict[str, str]:
    return {file.name: file.read_bytes().decode() for file in folder.iterdir()}


@pytest.mark.parametrize(
    "metadata", [METADATA, LANDMARKS, UNKNOWN], ids=["everything", "landmarks", "nothing"]
)
def test_the_files_are_those_of_tensorflow_datasets_to_the_byte(metadata, tmp_path):
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    ours.mkdir()
    theirs.mkdir()
    write_metadata(ours, metadata)
    write_by_tfds(theirs, metadata)
    assert contents(ours) == contents(theirs)
    assert INFO_FILE in contents(ours)
