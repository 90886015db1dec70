import io
import json
import pickle
import shutil
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest

from uniface_jax.data.conversion.run import write_dataset
from uniface_jax.data.formats import images
from uniface_jax.data.formats.tfrecord_info import read_dataset_info
from uniface_jax.data.formats.tfrecord_shards import INDEX_FILE, RecordReader, record_bounds
from uniface_jax.data.sources.base import Item
from uniface_jax.data.sources.folders import FolderSource
from uniface_jax.data.sources.opening import open_source
from uniface_jax.data.sources.tfrecord import TFRecordSource
from uniface_jax.errors import UserError


def contents(source):
    return Counter(tuple(source[i]) for i in range(len(source)))


@pytest.fixture
def copy(dataset, tmp_path):
    return shutil.copytree(dataset, tmp_path / "copy")


def test_round_trip_byte_for_byte(faces, dataset):
    source = open_source(dataset)
    assert isinstance(source, TFRecordSource)
    assert contents(source) == contents(FolderSource(faces))
    assert source.class_names == ["s1", "s2", "s10"]
    assert [source[i].name for i in range(23)] != sorted(source[i].name for i in range(23))


def test_the_source_travels_to_other_processes(dataset):
    source = TFRecordSource(dataset)
    assert pickle.loads(pickle.dumps(source))[7] == source[7]


def test_info(dataset):
    info = read_dataset_info(dataset)
    assert (info.name, info.num_examples, info.num_classes) == ("faces", 23, 3)
    assert [count for _, count in info.shards] == [10, 10, 3]
    assert info.class_names == ["s1", "s2", "s10"]
    assert info.image_shape == (112, 112, 3)


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


def test_same_seed_same_bytes(faces, dataset, tmp_path):
    write_dataset(FolderSource(faces), tmp_path / "a", name="faces", seed=1, shard_size=10)
    write_dataset(FolderSource(faces), tmp_path / "b", name="faces", seed=2, shard_size=10)
    for file in sorted(dataset.iterdir()):
        assert (tmp_path / "a" / file.name).read_bytes() == file.read_bytes()
    shard = "faces-train.tfrecord-00000-of-00003"
    assert (tmp_path / "b" / shard).read_bytes() != (dataset / shard).read_bytes()


def test_missing_or_stale_index_is_rebuilt(copy):
    right = (copy / INDEX_FILE).read_bytes()
    zipped = io.BytesIO()
    np.savez(zipped, right)
    for wrong in (
        None,
        b"",
        b"noise",
        zipped.getvalue(),
        right[:-8],
        right[:200] + bytes(8) * (len(right) // 8 - 25),
    ):
        (copy / INDEX_FILE).unlink()
        if wrong is not None:
            (copy / INDEX_FILE).write_bytes(wrong)
        assert [len(b) for b in record_bounds(read_dataset_info(copy))] == [11, 11, 4]
        assert (copy / INDEX_FILE).read_bytes() == right


def test_a_set_made_elsewhere_has_no_names_and_no_index(tmp_path):
    """As TFDS' own builders may write it: no name in a record, classes without names."""
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


@pytest.mark.parametrize("shard", [0, 2])
@pytest.mark.parametrize("with_index", [True, False])
def test_truncated_shards_are_named(copy, shard, with_index):
    file = copy / f"faces-train.tfrecord-{shard:05d}-of-00003"
    file.write_bytes(file.read_bytes()[:-100])
    if not with_index:
        (copy / INDEX_FILE).unlink()
    whole = [9, 9, 2][shard]
    expected = [10, 10, 3][shard]
    with pytest.raises(UserError, match=rf"{file.name}: {whole} whole .* expected {expected} rec"):
        open_source(copy)


def test_shards_missing_or_of_another_set_are_named(copy):
    file = copy / "faces-train.tfrecord-00001-of-00003"
    content = file.read_bytes()
    file.unlink()
    with pytest.raises(UserError, match=rf"{file.name}: missing"):
        open_source(copy)
    file.write_bytes(content + content)
    with pytest.raises(UserError, match=rf"{file.name}: 10 whole records and .* bytes after"):
        open_source(copy)
    file.write_bytes(b"\xff" * len(content))
    with pytest.raises(UserError, match=rf"{file.name}: record 4 has 1844.* bytes by its header"):
        open_source(copy)[14]
    (copy / INDEX_FILE).unlink()
    with pytest.raises(UserError, match=rf"{file.name}: 0 whole records"):
        open_source(copy)


def test_an_index_with_other_places_is_named(copy):
    for place, wrong in ((1, 1 << 63), (1, 0), (2, 1), (10, (1 << 64) - 1)):
        index = np.load(copy / INDEX_FILE)
        index[place] = wrong
        if place == 10:  # the end of an empty shard
            (copy / "faces-train.tfrecord-00000-of-00003").write_bytes(b"")
            index[place] = 0
        np.save(copy / INDEX_FILE, index)
        source = open_source(copy)
        with pytest.raises(UserError, match=r"00000-of-00003: record \d has \d+ bytes by its head"):
            [source[i] for i in range(10)]
        source.sizes(np.arange(23))


def test_a_changed_bit_is_named(copy):
    file = copy / "faces-train.tfrecord-00001-of-00003"
    content = bytearray(file.read_bytes())
    content[200] ^= 1
    file.write_bytes(content)
    source = open_source(copy)
    assert source[9].image
    with pytest.raises(UserError, match=rf"{file.name}: record 0: its checksum is not"):
        source[10]


def test_names_of_classes_that_are_no_text(copy):
    (copy / "label.labels.txt").write_bytes(b"ann\n\xff\nbob")
    with pytest.raises(UserError, match=r"label\.labels\.txt: not UTF-8 text, at byte 4"):
        open_source(copy)


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("dataset_info.json", lambda info: info.pop("splits"), "not the metadata"),
        ("dataset_info.json", lambda info: info.update(name="../faces"), r"a shard .*\.\./faces"),
        ("dataset_info.json", lambda info: info.update(name="a\nb"), r"a shard .*a\\nb"),
        ("dataset_info.json", lambda info: info.update(name="a" * 3000), "a shard .*aaa"),
        (
            "dataset_info.json",
            lambda info: info["splits"][0].update(
                filepathTemplate="faces-train.tfrecord-00000-of-00003"
            ),
            "does not number shards",
        ),
        (
            "dataset_info.json",
            lambda info: info["splits"][0].update(shardLengths=[float("inf")]),
            "not the metadata",
        ),
        (
            "dataset_info.json",
            lambda info: info["splits"][0].update(shardLengths=["9" * 4000]),
            "shardLengths",
        ),
        (
            "dataset_info.json",
            lambda info: info["splits"][0].update(name=["test"] * 500),
            "splits .* 'train'",
        ),
        (
            "features.json",
            lambda f: f["featuresDict"]["features"]["label"]["classLabel"].update(numClasses=1e300),
            "numClasses is 1000",
        ),
        ("dataset_info.json", lambda info: info["splits"][0].update(name="test"), "named 'train'"),
        ("dataset_info.json", lambda i: i.update(fileFormat="riegeli"), "'riegeli', only tfrec"),
        (
            "dataset_info.json",
            lambda info: info["splits"][0].update(filepathTemplate="{DATASET:>999999999}"),
            "missing",
        ),
        (
            "dataset_info.json",
            lambda info: info["splits"][0].update(shardLengths=["-1"]),
            "shardLengths",
        ),
        ("features.json", lambda features: features.clear(), "expected the features"),
    ],
)
def test_malformed_metadata_is_named(copy, file, change, message):
    value = json.loads((copy / file).read_text())
    change(value)
    (copy / file).write_text(json.dumps(value))
    with pytest.raises(UserError, match=message) as error:
        open_source(copy)
    assert str(copy) in str(error.value)


def test_no_metadata(copy):
    (copy / "features.json").write_text("{")
    with pytest.raises(UserError, match=r"features\.json: not JSON"):
        read_dataset_info(copy)
    (copy / "features.json").unlink()
    with pytest.raises(UserError, match=r"features\.json: No such file.*uniface_jax\.convert"):
        read_dataset_info(copy)


def test_corrupt_image_leaves_nothing_like_a_data_set(tmp_path):
    folder = tmp_path / "faces" / "ann"
    folder.mkdir(parents=True)
    whole = images.encode_png(np.random.RandomState(0).randint(0, 256, (50, 40, 3), np.uint8))
    for i in range(5):
        (folder / f"{i}.png").write_bytes(whole if i != 3 else whole[:-200])
    with pytest.raises(UserError, match=r"faces: ann/3\.png: the image is truncated"):
        write_dataset(FolderSource(tmp_path / "faces"), tmp_path / "d", name="d", shard_size=2)
    assert not (tmp_path / "d" / "dataset_info.json").exists()
    assert not list((tmp_path / "d").rglob("*.tmp"))
    (folder / "3.png").write_bytes(whole)
    (folder / "4.pgm").write_bytes(b"P5 2 2 255\nabcd")
    with pytest.raises(
        UserError, match=r"ann/4\.pgm: PPM, but TFRecord data sets hold JPEG or PNG"
    ):
        write_dataset(FolderSource(tmp_path / "faces"), tmp_path / "e", name="d", shard_size=2)
    (folder / "4.pgm").unlink()
    write_dataset(FolderSource(tmp_path / "faces"), tmp_path / "d", name="d", shard_size=2)
    assert len(open_source(tmp_path / "d")) == 5


def test_arguments_are_checked_before_work(faces, dataset, tmp_path):
    source = FolderSource(faces)
    with pytest.raises(UserError, match="already holds a data set"):
        write_dataset(source, dataset, name="faces")
    with pytest.raises(UserError, match="name 'my faces'"):
        write_dataset(source, tmp_path / "d", name="my faces")
    with pytest.raises(UserError, match="shard_size 0"):
        write_dataset(source, tmp_path / "d", name="d", shard_size=0)
    assert not (tmp_path / "d").exists()
