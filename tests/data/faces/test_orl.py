"""The demo's pairs."""

import numpy as np

from uniface_jax.data.faces.orl import folded_pairs


def test_folded_pairs_have_equal_shares():
    labels = np.repeat(np.arange(10), 10)
    first, second, same = folded_pairs(labels, 10, seed=0)
    assert len({*zip(first.tolist(), second.tolist(), strict=True)}) == 4950
    assert (first < second).all()
    assert (same == (labels[first] == labels[second])).all()
    assert same.reshape(10, 495).sum(1).tolist() == [45] * 10
    assert not (np.diff(same[:495].astype(int)) <= 0).all()  # the kinds are mixed in a fold
    assert (first != folded_pairs(labels, 10, seed=1)[0]).any()
