"""Containers that other tools wrote: read, converted and trained on, whole and damaged."""

import pickle

import numpy as np
import pytest
import simplejpeg

from tests.helpers.containers import (
    FOLDER,
    LABELED,
    PAIRS,
    expected_pairs,
    expected_records,
    read_or_refused,
    records_of,
    truncated_copies,
)
from uniface_jax.data.conversion.job import ConversionSettings
from uniface_jax.data.conversion.run import convert
from uniface_jax.data.conversion.verify import verify
from uniface_jax.data.input.augment import Augment
from uniface_jax.data.input.batches import DecoderPool, train_batches
from uniface_jax.data.input.sampler import Sampler
from uniface_jax.data.sources.opening import open_source
from uniface_jax.data.sources.tfrecord import TFRecordSource

NAMED = {**LABELED, **PAIRS}
WHOLE = sorted({name.partition("/")[0] if "*" in name or "{" in name else name for name in NAMED})


@pytest.mark.parametrize(("named", "containers"), LABELED.items())
def test_every_record_is_what_its_writer_wrote(named, containers, tmp_path):
    source = open_source(f"{FOLDER}/{named}")
    expected = expected_records(containers)
    assert records_of(source) == expected
    bounds = source.sizes(np.arange(len(source)))
    assert [size >= length for size, (_, _, length) in zip(bounds, expected, strict=True)]
    info = convert(source, tmp_path / "set", ConversionSettings("set", shard_size=4), workers=1)
    assert info.num_examples == len(expected)
    assert verify(source, tmp_path / "set", workers=1).images == len(expected)
    converted = TFRecordSource(tmp_path / "set")
    assert sorted(records_of(converted)) == sorted(expected)
    # Each record says where it came from.
    names = [source[i].name for i in range(len(source))]
    assert len(set(names)) == len(names)
    assert {converted[i].name for i in range(len(converted))} == set(names)


@pytest.mark.parametrize(("named", "container"), PAIRS.items())
def test_images_of_pairs_are_converted_too(named, container, tmp_path):
    source = open_source(FOLDER / named)
    hashes = {sha256 for _, pair in expected_pairs(container) for sha256 in pair}
    assert {record[1] for record in records_of(source)} == hashes
    convert(source, tmp_path / "set", ConversionSettings("set"), workers=1)
    assert verify(source, tmp_path / "set", workers=1).images == len(hashes)


@pytest.mark.parametrize("named", NAMED)
def test_training_reads_them_as_they_lie(named):
    source = open_source(f"{FOLDER}/{named}")
    decoders = DecoderPool("threads", 2)
    batches = train_batches(
        source, Sampler(batch_size=4, seed=0), augment=Augment(flip=False), decoders=decoders
    )
    seen = set()
    for batch in batches:
        for image, label, index in zip(batch["image"], batch["label"], batch["index"], strict=True):
            item = source[int(index)]
            assert np.array_equal(image, simplejpeg.decode_jpeg(item.image))
            assert label == item.label
            seen.add(int(index))
        if len(seen) == len(source):
            break
    batches.close()


@pytest.mark.parametrize("name", WHOLE)
def test_one_that_is_cut_short_is_refused_or_read(name, tmp_path):
    outcomes = [read_or_refused(copy) for copy in truncated_copies(FOLDER / name, tmp_path, 50)]
    assert sum(map(bool, outcomes)) > 25
    for refused in filter(None, outcomes):
        assert "\n" not in refused
        assert str(tmp_path) in refused


@pytest.mark.parametrize("named", ["lmdb/haiyuwu.lmdb", "webdataset_gz", "parquet"])
def test_decoding_processes_share_the_places_of_images(named):
    source = open_source(f"{FOLDER}/{named}")
    assert source.reopens_quickly
    again = pickle.loads(pickle.dumps(source))
    assert [again[i] for i in range(len(again))] == [source[i] for i in range(len(source))]
    assert again.fingerprint() == source.fingerprint()
    assert (again.class_names, again.num_classes) == (source.class_names, source.num_classes)
    batches = train_batches(
        source, Sampler(batch_size=4, seed=0), decoders=DecoderPool("processes", 1)
    )
    batch = next(batches)
    batches.close()
    assert [source[int(i)].label for i in batch["index"]] == batch["label"].tolist()
