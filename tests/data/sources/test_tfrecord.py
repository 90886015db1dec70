import pickle
import subprocess
import sys
from collections import Counter

import numpy as np

from uniface_jax.data.conversion.run import write_dataset
from uniface_jax.data.formats import images
from uniface_jax.data.formats.tfrecord_info import read_dataset_info
from uniface_jax.data.formats.tfrecord_shards import INDEX_FILE, RecordReader
from uniface_jax.data.sources.base import Item
from uniface_jax.data.sources.folders import FolderSource
from uniface_jax.data.sources.opening import open_source
from uniface_jax.data.sources.tfrecord import TFRecordSource


def contents(source):
    return Counter(tuple(source[i]) for i in range(len(source)))


def test_round_trip_byte_for_byte(faces, dataset):
    source = open_source(dataset)
    assert isinstance(source, TFRecordSource)
    assert contents(source) == contents(FolderSource(faces))
    assert source.class_names == ["s1", "s2", "s10"]
    assert [source[i].name for i in range(23)] != sorted(source[i].name for i in range(23))


def test_the_source_travels_to_other_processes(dataset):
    source = TFRecordSource(dataset)
    assert pickle.loads(pickle.dumps(source))[7] == source[7]


def test_reading_metadata_does_not_import_tensorflow(dataset):
    code = (
        "import sys; from uniface_jax.data.sources.opening import open_source\n"
        f"assert len(open_source({str(dataset)!r})) == 23\n"
        "assert 'tensorflow' not in sys.modules and 'jax' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_tensorflow_datasets_opens_it_as_it_is(faces, dataset):
    import tensorflow_datasets as tfds

    builder = tfds.builder_from_directory(str(dataset))
    assert builder.info.features["label"].names == ["s1", "s2", "s10"]
    raw = builder.as_dataset(split="train", decoders={"image": tfds.decode.SkipDecoding()})
    found = Counter(
        Item(e["image"], int(e["label"]), e["name"].decode()) for e in raw.as_numpy_iterator()
    )
    assert found == contents(FolderSource(faces))
    one = next(iter(tfds.as_numpy(builder.as_dataset(split="train"))))
    encoded = (faces / one["name"].decode()).read_bytes()
    difference = one["image"].astype(int) - images.decode(encoded, "x")
    assert np.abs(difference).mean() < 3  # JPEG decoders round differently


def test_a_set_made_elsewhere_has_no_names_and_no_index(tmp_path):
    """Read what TFDS' own builders may write: no name in a record, classes without names."""
    import tensorflow as tf

    (tmp_path / "f" / "a").mkdir(parents=True)
    (tmp_path / "f" / "a" / "1.png").write_bytes(images.encode_png(np.zeros((5, 4, 3), np.uint8)))
    write_dataset(FolderSource(tmp_path / "f"), tmp_path / "d", name="d")
    (tmp_path / "d" / INDEX_FILE).unlink()
    (tmp_path / "d" / "label.labels.txt").unlink()
    shard = tmp_path / "d" / "d-train.tfrecord-00000-of-00001"
    example = tf.train.Example.FromString(RecordReader(read_dataset_info(tmp_path / "d"))[0])
    del example.features.feature["name"]
    with tf.io.TFRecordWriter(str(shard)) as writer:
        writer.write(example.SerializeToString())
    opened = TFRecordSource(tmp_path / "d")
    assert opened.class_names is None
    assert opened[0] == Item((tmp_path / "f" / "a" / "1.png").read_bytes(), 0, "0")
    assert opened.info.image_shape == (5, 4, 3)
