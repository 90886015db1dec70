import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.examples import examples
from uniface_jax.data.input.shuffle import shuffled, uniforms

PINNED = [1, 3, 9, 4, 5, 2, 7, 6, 0, 8]


@examples(200)
@given(st.integers(1, 50), st.integers(0, 2**32), st.integers(0, 2**20))
def test_every_epoch_is_a_permutation(size, seed, epoch):
    result = shuffled(np.arange(size), size, seed, np.full(size, epoch))
    assert sorted(result) == list(range(size))


@pytest.mark.parametrize("size", [1000, 4096, 4097, 490_623])
def test_large_sizes_are_permutations(size):
    result = shuffled(np.arange(size), size, 3, np.zeros(size, int))
    assert (np.bincount(result, minlength=size) == 1).all()


def test_positions_are_independent_of_each_other():
    whole = shuffled(np.arange(300), 300, 5, np.full(300, 2))
    some = np.array([299, 0, 17, 17])
    assert (shuffled(some, 300, 5, np.full(4, 2)) == whole[some]).all()


def test_epochs_and_seeds_differ():
    orders = {
        tuple(shuffled(np.arange(20), 20, seed, np.full(20, epoch)))
        for seed in range(10)
        for epoch in range(10)
    }
    assert len(orders) == 100


def test_values_are_spread_evenly():
    """Over many epochs every record comes equally often at every position (chi-square)."""
    size, epochs = 8, 4000
    positions = np.tile(np.arange(size), epochs)
    result = shuffled(positions, size, 1, np.repeat(np.arange(epochs), size))
    table = np.zeros((size, size))
    np.add.at(table, (positions, result), 1)
    expected = epochs / size
    chi_square = ((table - expected) ** 2 / expected).sum()
    assert chi_square < 100  # 49 degrees of freedom: mean 49, five standard deviations 98


def test_the_order_never_changes():
    """A resumed run relies on it across versions of everything."""
    assert shuffled(np.arange(10), 10, 0, np.zeros(10, int)).tolist() == PINNED


def test_positions_out_of_range():
    with pytest.raises(ValueError):
        shuffled(np.array([5]), 5, 0, np.array([0]))


def test_uniforms_are_uniform_and_independent():
    numbers = uniforms(np.arange(20_000), 3, seed=7)
    assert numbers.dtype == np.float32
    assert numbers.min() >= 0
    assert numbers.max() < 1
    np.testing.assert_allclose(numbers.mean(0), 0.5, atol=0.01)
    np.testing.assert_allclose(np.cov(numbers.T), np.eye(3) / 12, atol=0.003)
    neighbours = np.corrcoef(numbers[1:, 0], numbers[:-1, 0])[0, 1]
    assert abs(neighbours) < 0.04


def test_uniforms_belong_to_the_sample():
    some = np.array([5, 2**40, 5])
    numbers = uniforms(some, 4, seed=1)
    assert (numbers[0] == numbers[2]).all()
    assert (numbers[0] != numbers[1]).all()
    assert (uniforms(some, 2, seed=1) == numbers[:, :2]).all()
    assert (uniforms(some, 4, seed=2) != numbers).all()
    assert uniforms(some, 0, seed=1).shape == (3, 0)
