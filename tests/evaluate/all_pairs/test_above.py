import numpy as np
import pytest

from uniface_jax.evaluate.all_pairs.above import count_products, pairs_above
from uniface_jax.evaluate.all_pairs.tiles import Tiling


def units(rng, count, width=6):
    features = rng.standard_normal((count, width))
    return features / np.linalg.norm(features, axis=1, keepdims=True)


@pytest.mark.parametrize(("block_images", "others"), [(1000, None), (70, None), (70, 45), (30, 90)])
def test_all_pairs_are_found_once(block_images, others):
    rng = np.random.default_rng(others or 0)
    a = units(rng, 150)
    b = None if others is None else units(rng, others)
    scores = a @ (a if b is None else b).T
    wanted = {
        (i, j) for i, j in zip(*np.nonzero(scores >= 0.6), strict=True) if b is not None or i < j
    }
    found = list(pairs_above(a, b, bound=0.6, block_images=block_images, tiling=Tiling(block=128)))
    pairs = [pair for f in found for pair in zip(f.first, f.second, strict=True)]
    assert len(pairs) == len(set(pairs)) == len(wanted) > 0
    assert set(pairs) == wanted
    for f in found:
        np.testing.assert_allclose(f.scores, scores[f.first, f.second], atol=1e-6)


def test_products_are_those_of_the_pairs():
    assert count_products(5) == len(list(zip(*np.triu_indices(5, 1), strict=True)))
    assert count_products(5, 7) == 35
