"""Records of TFRecord shards by index: rebuilt, and what is damaged is named."""

import io
import os

import numpy as np
import pytest

from tests.helpers.conversion import without_digests
from uniface_jax.data.formats.image_index import IMAGE_INDEX_FILE
from uniface_jax.data.formats.tfrecord_info import read_dataset_info
from uniface_jax.data.formats.tfrecord_shards import (
    INDEX_FILE,
    check_frame,
    framed,
    record_bounds,
)
from uniface_jax.data.sources.opening import open_source
from uniface_jax.errors import UserError


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
    without_digests(copy)
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


def test_frames_are_tensorflow_s(tmp_path):
    import tensorflow as tf

    records = [b"", b"a", bytes(range(256)) * 50]
    with tf.io.TFRecordWriter(str(tmp_path / "r")) as writer:
        for record in records:
            writer.write(record)
    frames = [framed(record) for record in records]
    assert b"".join(frames) == (tmp_path / "r").read_bytes()
    assert [check_frame(frame, "x") for frame in frames] == records
    for place in np.linspace(0, len(frames[2]) - 1, 40).astype(int).tolist():
        damaged = bytearray(frames[2])
        damaged[place] ^= 16
        with pytest.raises(UserError, match="where: its checksum"):
            check_frame(bytes(damaged), "where")
    with pytest.raises(UserError):
        check_frame(b"short", "where")


def test_a_shard_cut_short_while_it_is_in_use_is_an_error_with_its_name(copy):
    shard = copy / "faces-train.tfrecord-00001-of-00003"
    source = open_source(copy)
    whole = source[14].image
    os.truncate(shard, shard.stat().st_size // 4)
    images, _ = source.images(np.arange(10, 20))
    assert images[4] != whole  # decoding fails, and reads the record, which says why
    with pytest.raises(UserError, match=rf"{shard.name}: record 4: .*cut short while it was read"):
        source[14]
    assert source[3].image  # of another shard


@pytest.mark.parametrize("name", [INDEX_FILE, IMAGE_INDEX_FILE])
def test_an_index_cut_short_while_it_is_in_use_is_an_error_with_its_name(name, copy):
    source = open_source(copy)
    os.truncate(copy / name, 8)
    with pytest.raises(UserError, match=f"{name}: cut short while it was read"):
        source.images(np.arange(5)) if name == IMAGE_INDEX_FILE else source[2]


def test_an_index_of_huge_images_takes_no_memory(copy):
    without_digests(copy)
    rows = np.load(copy / IMAGE_INDEX_FILE)
    rows["size"][:9] = 2**32 - 1
    np.save(copy / IMAGE_INDEX_FILE, rows)
    images, _ = open_source(copy).images(np.arange(9))
    assert images == [b""] * 9
