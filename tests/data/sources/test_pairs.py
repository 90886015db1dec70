"""Verification pairs as a source."""

import pickle

import numpy as np
import pytest

from uniface_jax.data.formats.bin_pairs import read_pairs, write_pairs
from uniface_jax.data.sources.opening import open_source
from uniface_jax.errors import UserError


def test_fixtures_as_a_source(fixtures_folder, tmp_path):
    sources = [open_source(fixtures_folder / "bins" / f"{n}.bin") for n in ("py3", "py2", "numpy")]
    rows = [[tuple(item) for item in source] for source in sources]
    assert rows[0] == rows[1] == rows[2]
    pairs = read_pairs(fixtures_folder / "bins" / "py3.bin")
    labels = np.array([label for _, label, _ in rows[0]])
    assert (labels[pairs.first] == labels[pairs.second])[pairs.same].all()
    assert sorted(set(labels)) == list(range(sources[0].num_classes))
    assert "groups of images that pairs of the same person connect" in sources[0].notes[0]
    part = pickle.loads(pickle.dumps(sources[0].part(np.array([5, 2]))))
    assert [tuple(item) for item in part] == [rows[0][5], rows[0][2]]
    assert sources[0].sizes(np.array([5])).tolist() == [len(rows[0][5][0])]
    assert sources[0].fingerprint() == sources[1].fingerprint()
    with pytest.raises(UserError, match=r"malicious\.bin: refused"):
        open_source(fixtures_folder / "bins" / "malicious.bin")


def test_classes_are_what_pairs_connect(tmp_path):
    images = [b"a", b"b", b"c", b"d", b"e"]
    write_pairs(tmp_path / "x.bin", images, [4, 0, 1, 2], [1, 3, 2, 0], [True, True, False, True])
    source = open_source(tmp_path / "x.bin")
    assert [(i.image, i.label) for i in source] == [
        (b"e", 0), (b"b", 0), (b"a", 1), (b"d", 1), (b"c", 1),
    ]  # fmt: skip
