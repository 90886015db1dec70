"""Metadata of TFRecord data sets: what is read, and what is refused."""

import json

import pytest

from uniface_jax.data.formats.tfrecord_info import read_dataset_info
from uniface_jax.data.sources.opening import open_source
from uniface_jax.errors import UserError


def test_info(dataset):
    info = read_dataset_info(dataset)
    assert (info.name, info.num_examples, info.num_classes) == ("faces", 23, 3)
    assert [count for _, count in info.shards] == [10, 10, 3]
    assert info.class_names == ["s1", "s2", "s10"]
    assert info.image_shape == (112, 112, 3)


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
