"""Verification sets by the files, tables and folders that a user names."""

import hashlib

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.helpers.containers import FOLDER, PAIRS, expected_pairs, pairs_of
from uniface_jax.errors import UserError
from uniface_jax.evaluate.sets.image_sets import FileDigests
from uniface_jax.evaluate.sets.pair_sets import find_pair_files, open_pair_sets, read_pair_sets


@pytest.fixture(autouse=True)
def _few_pairs_are_enough(monkeypatch):
    # Those of the fixtures are fewer than ten folds need.
    monkeypatch.setattr("uniface_jax.evaluate.sets.pair_sets.check_pairs", lambda *_: None)


@pytest.mark.parametrize(("named", "container"), PAIRS.items())
def test_every_pair_is_what_its_writer_wrote(named, container):
    ((name, pairs),) = read_pair_sets([FOLDER / named]).items()
    assert pairs_of(pairs) == expected_pairs(container)
    assert name in ("small", "agedb_30", "lfw")
    images = open_pair_sets([FOLDER / named])[name].images
    assert images.pixels(0).shape == (112, 112, 3)
    assert len(images.digest(FileDigests())) == 64


def test_a_folder_of_tables_is_a_set_a_split(tmp_path):
    for split, shards in (("lfw", 1), ("cfp", 2)):
        for shard in range(shards):
            images = [f"{split} {shard} {i}".encode() for i in range(3)]
            table = pa.table({"image1": images, "image2": images[::-1], "label": [1, 0, 1]})
            pq.write_table(table, tmp_path / f"{split}-{shard:05d}-of-{shards:05d}.parquet")
    assert list(find_pair_files([tmp_path])) == ["cfp", "lfw"]
    sets = open_pair_sets([tmp_path])
    assert {name: len(found.pairs) for name, found in sets.items()} == {"cfp": 6, "lfw": 3}
    assert sets["cfp"].pairs.same.tolist() == [True, False, True] * 2
    digests = {name: found.images.digest(FileDigests()) for name, found in sets.items()}
    content = (tmp_path / "lfw-00000-of-00001.parquet").read_bytes()
    assert digests["lfw"] == hashlib.sha256(content).hexdigest()
    assert digests["cfp"] != digests["lfw"]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"image1": [b"a"], "image2": [b"b"]}, "expected the columns image1, image2, label, or"),
        ({"image1": [b"a"], "image2": [b""], "label": [1]}, "an image of no bytes"),
        ({"image1": [b"a"], "image2": [b"b"], "label": [2]}, "marks of the type int64"),
        ({"image": [b"a"] * 3, "is_same": [True] * 3}, "3 rows of images, expected two a pair"),
        ({"image": [b"a"] * 2, "is_same": [True, False]}, "expected two a pair that say the same"),
        ({"image": [b"a"] * 2, "is_same": [True] * 2, "index": [1, 1]}, r"index: expected 0\.\.1"),
        ({"image": [b"a"] * 2, "is_same": [True] * 2, "index": [-1, 0]}, "whole numbers from 0 on"),
    ],
)
def test_tables_that_are_no_pairs_are_named(tmp_path, columns, message):
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    with pytest.raises(UserError, match=rf"a\.parquet: .*{message}"):
        open_pair_sets([tmp_path / "a.parquet"])


def test_rows_are_in_the_order_of_their_index(tmp_path):
    order = np.random.default_rng(0).permutation(20)
    columns = {
        "image": [b"image %d" % i for i in order],
        "is_same": [bool(i // 2 % 3) for i in order],
        "index": order,
    }
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    pairs = open_pair_sets([tmp_path / "a.parquet"])["a"].pairs
    assert pairs.images == [b"image %d" % i for i in range(20)]
    assert pairs.same.tolist() == [bool(i % 3) for i in range(10)]


def test_a_list_finds_no_landmarks_by_position(tmp_path):
    """Its images are numbered as they are mentioned, and a table as they lie in the folder."""
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / name).touch()
    (tmp_path / "pairs.csv").write_text("b.jpg,a.jpg,1\na.jpg,b.jpg,0\n")
    for heading, keys in (("name,x", ("a.jpg", "b.jpg")), ("idx,x", "01")):
        lines = [f"{key}{f',.{n}' * 10}" for n, key in enumerate(keys, 3)]
        (tmp_path / "landmarks.csv").write_text("\n".join([heading, *lines]))
        images = open_pair_sets([tmp_path / "pairs.csv"], tmp_path)["pairs"].images
        assert images.names == ["b.jpg", "a.jpg"]
        if heading == "name,x":
            np.testing.assert_allclose(images.landmarks(0), 0.4)
            continue
        with pytest.raises(UserError, match=r"landmarks.csv: finds landmarks by position"):
            images.landmarks(0)
