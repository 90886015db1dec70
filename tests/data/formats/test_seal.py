"""One bit of a converted data set, flipped: noticed by --verify, and of indices at opening."""

import json
import os
import shutil

import numpy as np
import pytest

from tests.helpers.conversion import without_digests
from uniface_jax.data.conversion.job import ConversionSettings
from uniface_jax.data.conversion.run import convert
from uniface_jax.data.conversion.statistics import PLOT_FILE, plot_statistics, read_statistics
from uniface_jax.data.conversion.verify import verify
from uniface_jax.data.formats.image_index import IMAGE_INDEX_FILE, ROW_DTYPE
from uniface_jax.data.formats.seal import MANIFEST_FILE, is_whole, sealed
from uniface_jax.data.formats.tfrecord_shards import INDEX_FILE
from uniface_jax.data.sources.folders import FolderSource
from uniface_jax.data.sources.tfrecord import TFRecordSource
from uniface_jax.errors import UserError

SEED = int(os.environ.get("UNIFACE_FLIP_SEED", "0"))
AT_OPENING = (MANIFEST_FILE, INDEX_FILE, IMAGE_INDEX_FILE)


@pytest.fixture(scope="module")
def converted(faces, tmp_path_factory):
    """The folder of a data set as the command leaves it, and its source."""
    source, folder = FolderSource(faces), tmp_path_factory.mktemp("sealed") / "set"
    convert(source, folder, ConversionSettings("faces", shard_size=10))
    plot_statistics(read_statistics(folder), folder / PLOT_FILE)
    assert verify(source, folder).images == 23
    return folder, source


def flip(file, bit):
    content = bytearray(file.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    file.write_bytes(content)


@pytest.mark.parametrize("count", [24, pytest.param(200, marks=pytest.mark.slow)])
def test_a_flipped_bit_is_noticed(converted, tmp_path, count):
    folder, source = converted
    copy = shutil.copytree(folder, tmp_path / "set")
    files = sorted(file.name for file in copy.iterdir() if file.is_file())
    assert {*AT_OPENING, PLOT_FILE, "statistics.json", "dataset_info.json"} < set(files)
    random = np.random.default_rng(SEED)
    for number in range(count):
        name = files[number % len(files)]
        bit = int(random.integers(8 * (copy / name).stat().st_size))
        flip(copy / name, bit)
        if name in AT_OPENING:
            with pytest.raises(UserError, match=name):
                TFRecordSource(copy)
        noticed = ""
        try:
            verify(source, copy, workers=1)
        except UserError as e:
            noticed = str(e)
        assert str(copy) in noticed, f"bit {bit} of {name}, seed {SEED}: {noticed}"
        shutil.copy(folder / name, copy / name)
    assert verify(source, copy, workers=1).images == 23


def test_shifted_labels_and_places_are_refused_at_opening(converted, tmp_path):
    copy = shutil.copytree(converted[0], tmp_path / "set")
    file = copy / IMAGE_INDEX_FILE
    whole = np.load(file)
    for key in ROW_DTYPE.names:
        shifted = whole.copy()
        shifted[key][:-1] = whole[key][1:]  # each shard's last row still fits
        np.save(file, shifted)
        with pytest.raises(UserError, match=r"image_index\.npy: damaged.*without that file"):
            TFRecordSource(copy)
    file.unlink()
    assert len(TFRecordSource(copy)) == 23


def test_a_data_set_of_before_is_believed(converted, tmp_path):
    """One whose manifest has neither digests nor a digest, as version 0.2 wrote it."""
    folder, source = converted
    copy = shutil.copytree(folder, tmp_path / "set")
    without_digests(copy)
    assert verify(source, copy).images == len(TFRecordSource(copy)) == 23
    (copy / MANIFEST_FILE).unlink()
    assert len(TFRecordSource(copy)) == 23


def test_the_digest_is_of_every_byte():
    content = sealed({"a": [1, "0" * 64], "b": {"digest": "x"}})
    assert is_whole(content)
    assert json.loads(content)["b"] == {"digest": "x"}
    for place in range(len(content)):
        assert not is_whole(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
    assert not is_whole(b"")
