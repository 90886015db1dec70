"""Tables of features: what is written is read again, and what is malformed is refused."""

import csv
import dataclasses

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from uniface_jax.errors import UserError
from uniface_jax.inference.feature_files import write_features
from uniface_jax.inference.feature_reading import open_features
from uniface_jax.inference.feature_rows import FeatureRows, from_bytes, to_bytes


@pytest.fixture
def rows():
    random = np.random.default_rng(0)
    boxes = random.uniform(0, 99, (5, 4)).astype(np.float32)
    boxes[3] = np.nan
    return FeatureRows(
        ["a.jpg", "b, c.jpg", "No\udcebl.png", '=cmd("x")', "ä.jpg"],
        np.array([0, 1, 2, 2, 4]),
        ["ann", None, "bob", "bob", "ä"],
        np.array([0, 0, 0, 1, 0], np.int32),
        boxes,
        np.array([0.7, 0.8, 0.9, np.nan, 1], np.float32),
        random.standard_normal((5, 3)).astype(np.float32),
    )


RECORD = {
    "model": {"name": "m", "sha256": "ab", "description": "d"},
    "data": {"name": "photos"},
    "faces": {"align": True},
}


@pytest.mark.parametrize("ending", [".parquet", ".npy", ".csv"])
def test_what_is_written_is_read_again(rows, ending, tmp_path):
    path = tmp_path / f"features{ending}"
    parts = [rows.take(np.arange(2)), rows.take(np.arange(2, 5))]
    write_features(path, lambda: iter(parts), (5, 3), RECORD)
    table = open_features(path)
    assert (table.count, table.width) == (5, 3)
    for _ in range(2):
        (read,) = table.blocks()
        assert list(read.names) == ["a.jpg", "b, c.jpg", "No\\xebl.png", '=cmd("x")', "ä.jpg"]
        assert list(read.people) == list(rows.people)
        for name in ("photographs", "faces", "boxes", "scores", "features"):
            np.testing.assert_array_equal(getattr(read, name), getattr(rows, name))
    if ending == ".parquet":
        assert table.model == {"name": "m", "sha256": "ab", "description": "d", "align": "yes"}
        assert table.source == "photos"


@pytest.mark.parametrize("ending", [".parquet", ".npy", ".csv"])
def test_qualities_are_a_column_where_a_model_says_them(rows, ending, tmp_path):
    path = tmp_path / f"features{ending}"
    qualities = np.array([0.5, -1, 0.25, 3, 1e-9], np.float32)
    graded = dataclasses.replace(rows, qualities=qualities)
    parts = [graded.take(np.arange(2)), graded.take(np.arange(2, 5))]
    write_features(path, lambda: iter(parts), (5, 3), {**RECORD, "quality": "ab"})
    (read,) = open_features(path).blocks()
    np.testing.assert_array_equal(read.qualities, qualities)
    np.testing.assert_array_equal(read.features, rows.features)
    again, _ = from_bytes(to_bytes(graded, []))
    np.testing.assert_array_equal(again.qualities, qualities)


def test_an_array_alone_has_numbers_for_names(tmp_path):
    np.save(tmp_path / "f.npy", np.ones((3, 2), np.float64))
    table = open_features(tmp_path / "f.npy")
    (read,) = table.blocks()
    assert (list(read.names), table.model, table.source) == (["0", "1", "2"], None, "")


def npy(path, content=None, cut=0):
    np.save(path, np.ones((3, 2), np.float32) if content is None else content)
    path.write_bytes(path.read_bytes()[: -cut or None])


def parquet(path, **columns):
    pq.write_table(pa.table(columns), path)


def lines(path, *rows):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)


FIXED = pa.list_(pa.float32(), 2)


@pytest.mark.parametrize(
    ("name", "make", "words"),
    [
        ("f.txt", lambda p: p.write_text(""), "expected features in a file that ends in .parquet"),
        ("f.npy", lambda p: None, "cannot be read"),
        ("f.npy", lambda p: p.write_bytes(b"none"), "not an array in npy form"),
        ("f.npy", lambda p: npy(p, cut=1), "23 bytes of numbers for an array of"),
        ("f.npy", lambda p: npy(p, np.ones(3)), r"expected float32 \[N, D\]"),
        ("f.npy", lambda p: npy(p, np.ones((0, 3))), "0 features of 3 numbers"),
        ("f.npy", lambda p: np.save(p, np.array([[{}]]), allow_pickle=True), "expected float32"),
        ("f.parquet", lambda p: p.write_bytes(b"PAR1none"), "damaged, or not a table"),
        ("f.parquet", lambda p: parquet(p, x=[1]), "no column `feature`, only x"),
        ("f.parquet", lambda p: parquet(p, feature=[[1.0]]), "expected lists of one fixed size"),
        (
            "f.parquet",
            lambda p: parquet(p, feature=pa.array([None, [1, 2]], FIXED)),
            "has no whole feature",
        ),
        ("f.csv", lambda p: lines(p, ["name"], ["a"]), "1 features of 0 numbers"),
        ("f.csv", lambda p: lines(p, ["name", "f0"], ["a", "x"]), "no numbers in f0"),
        ("f.csv", lambda p: lines(p, ["name", "f0"], ["a", "1", "2"]), "of more columns"),
        ("f.csv", lambda p: lines(p, ["face", "f0"], ["x", "2"]), "no number where one is"),
        ("f.csv", lambda p: p.write_text("f0\n" + "1" * (1 << 20)), "a line of 1048576 letters"),
    ],
)
def test_malformed_tables_are_refused(name, make, words, tmp_path):
    make(tmp_path / name)
    with pytest.raises(UserError, match=words):
        list(open_features(tmp_path / name).blocks())
