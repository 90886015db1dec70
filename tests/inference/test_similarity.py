"""Cosines in tiles and the search of a gallery, against the plain formula in float64."""

import tracemalloc

import numpy as np
import pytest

from uniface_jax.errors import UserError
from uniface_jax.inference import similarity as tiled
from uniface_jax.inference.similarity import search, similarity, unit_vectors


def plain(a, b):
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    lengths = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
    return (a * b).sum(-1) / lengths


@pytest.fixture
def features():
    rng = np.random.default_rng(0)
    return rng.standard_normal((7, 16), np.float32), rng.standard_normal((50, 16), np.float32)


def test_shapes_broadcast(features):
    a, b = features
    for first, second in (
        (a[0], b[0]),
        (a[:, None], b),
        (b, a[:, None]),
        (a, b[:7]),
        (a[0], b),
        (a[:, None], b[None]),
        (a.reshape(7, 1, 1, 16), b),
    ):
        found = similarity(first, second)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, plain(first, second), atol=1e-6)


def test_no_array_of_all_products():
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal((count, 512), np.float32) for count in (300, 3000))
    tracemalloc.start()
    try:
        found = similarity(a[:, None], b)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 50e6  # in float64 the products alone are 3.7 GB
    np.testing.assert_allclose(found[17], plain(a[17], b), atol=1e-6)


@pytest.mark.parametrize("k", [1, 3, 50])
def test_search(features, k, monkeypatch):
    queries, gallery = features
    expected = np.argsort(-plain(queries[:, None], gallery), axis=1)[:, :k]
    for tile in (1, 4, 1000):
        monkeypatch.setattr(tiled, "TILE_QUERIES", tile)
        monkeypatch.setattr(tiled, "TILE_ROWS", tile)
        rows, cosines = search(queries, gallery, k)
        np.testing.assert_array_equal(rows, expected)
        taken = np.take_along_axis(plain(queries[:, None], gallery), expected, 1)
        np.testing.assert_allclose(cosines, taken, atol=1e-6)


def test_features_of_length_zero(features):
    queries, gallery = features
    gallery[3] = 0
    assert np.isnan(similarity(queries[0], gallery[3]))
    rows, cosines = search(queries, gallery, len(gallery))
    assert (rows[:, -1] == 3).all()
    assert np.isneginf(cosines[:, -1]).all()
    assert np.isnan(unit_vectors(np.zeros(4))).all()


def test_refusals(features):
    queries, gallery = features
    assert search(queries[:0], gallery, 2)[0].shape == (0, 2)
    for k in (0, 51):
        with pytest.raises(UserError, match=f"k={k}: expected 1 to 50"):
            search(queries, gallery, k)
    with pytest.raises(UserError, match=r"queries \[7, 15\] and gallery \[50, 16\]"):
        search(queries[:, :15], gallery)
