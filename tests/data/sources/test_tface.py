"""TFace's records: written as its img2tfrecord.py and convert_new_index.py write them."""

import pickle
import random

import numpy as np
import pytest

from tests.helpers.containers import read_or_refused
from uniface_jax.data.formats.tf_example import parse_image
from uniface_jax.data.formats.tfrecord_shards import framed
from uniface_jax.data.sources.opening import open_source
from uniface_jax.data.sources.tface import TfaceSource
from uniface_jax.errors import UserError

IMAGES = [b"\xff\xd8image %d " % i * (i + 1) for i in range(6)]


def example(image):
    """Return an Example of an image alone, of less than 100 bytes, as TFace's have it."""
    value = b"\x0a" + bytes([len(image) + 2]) + b"\x0a" + bytes([len(image)]) + image
    entry = b"\x0a\x05image\x12" + bytes([len(value)]) + value
    features = b"\x0a" + bytes([len(entry)]) + entry
    return b"\x0a" + bytes([len(features)]) + features


@pytest.fixture
def index(tmp_path):
    """Return an index whose labels are 7, 3, 7, …, over two shards."""
    folder = tmp_path / "TFR-A"
    folder.mkdir()
    lines = []
    for shard in range(2):
        content = b""
        for i in range(3):
            number = 3 * shard + i
            lines.append(f"TFR-A\t{shard}\t{len(content)}\t{(7, 3)[number % 2]}\n")
            content += framed(example(IMAGES[number]))
        (folder / f"TFR-A-{shard:05d}.tfrecord").write_bytes(content)
    (tmp_path / "index.txt").write_text("".join(lines))
    return tmp_path / "index.txt"


@pytest.mark.slow  # imports TensorFlow
def test_an_example_is_tensorflows():
    tensorflow = pytest.importorskip("tensorflow")
    train = tensorflow.train
    feature = train.Feature(bytes_list=train.BytesList(value=[IMAGES[2]]))
    made = train.Example(features=train.Features(feature={"image": feature}))
    assert made.SerializeToString() == example(IMAGES[2])
    assert parse_image(example(IMAGES[2])) == IMAGES[2]


def test_records_by_the_index(index):
    source = open_source(index)
    assert isinstance(source, TfaceSource)
    assert [source[i].image for i in range(6)] == IMAGES
    assert [source[i].label for i in range(6)] == [1, 0] * 3
    assert source.class_names == ["3", "7"]
    assert source[3].name == "TFR-A-00001.tfrecord/0"
    assert (source.sizes(np.arange(6)) > [len(image) for image in IMAGES]).all()
    for copy in (source, source.part(np.arange(6))):
        assert [pickle.loads(pickle.dumps(copy))[i] for i in range(6)] == [*source]


def test_a_cleaned_index_elsewhere(index, tmp_path):
    lines = index.read_text().splitlines(keepends=True)
    (tmp_path / "elsewhere" / "deep").mkdir(parents=True)
    cleaned = tmp_path / "elsewhere" / "deep" / "clean.txt"
    cleaned.write_text("".join(lines[4:0:-1]))
    source = open_source(f"tface:{tmp_path}:{cleaned}")
    assert [source[i].image for i in range(4)] == IMAGES[4:0:-1]
    (tmp_path / "TFR-A" / "own.txt").write_text("".join(lines))  # beside the shards
    assert len(open_source(tmp_path / "TFR-A" / "own.txt")) == 6
    with pytest.raises(UserError, match=r"expected FOLDER:INDEX"):
        open_source(f"tface:{cleaned}")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("TFR-A\t0\t0", "line 7: .*expected NAME, SHARD, OFFSET and LABEL"),
        ("TFR-A\t0\tx\t1", "line 7"),
        ("TFR-A\t0\t-1\t1", "line 7"),
        ("../TFR-A\t0\t0\t1", "line 7"),
        ("TFR-A\t2\t0\t1", r"line 7: .*TFR-A-00002\.tfrecord: no such file \(tface:FOLDER:INDEX"),
    ],
)
def test_lines_that_name_no_record_are_named(index, line, message):
    index.write_text(index.read_text() + line + "\n")
    with pytest.raises(UserError, match=rf"index\.txt: {message}"):
        open_source(index)


@pytest.mark.parametrize("offset", [1, 10**17, 10**9])
def test_offsets_of_no_record_are_named(index, offset):
    index.write_text(index.read_text() + f"TFR-A\t0\t{offset}\t1\n")
    source = open_source(index)
    with pytest.raises(UserError, match=rf"TFR-A-00000\.tfrecord: record at byte {offset}: "):
        source[6]
    source.sizes(np.arange(7))


def test_damaged_shards_are_refused(index):
    shard = index.parent / "TFR-A" / "TFR-A-00001.tfrecord"
    whole, rng = shard.read_bytes(), random.Random(0)
    for _ in range(50):
        shard.write_bytes(whole[: rng.randrange(len(whole))])
        assert f"{shard}: record at byte" in read_or_refused(index)
        content = bytearray(whole)
        content[rng.randrange(len(whole))] ^= 1 << rng.randrange(8)
        shard.write_bytes(content)
        assert f"{shard}: record at byte" in read_or_refused(index)
