"""The order of samples, far away and in parts."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from uniface_jax.data.input.sampler import Sampler
from uniface_jax.errors import UserError


def test_sample_indices_far_away():
    """Step and batch of the largest data set at the end of its training: no overflow."""
    step, batch, images_ = 205_000, 4096, 42_500_000
    samples, records = Sampler(batch, 2**40).indices(step, images_)
    assert samples[-1] == step * batch + batch - 1
    assert len(set(records.tolist())) == batch
    assert 0 <= records.min() < records.max() < images_
    assert (Sampler(batch, 2**40, 1, 4).indices(step, images_)[1] == records[1024:2048]).all()


@given(st.integers(1, 50), st.integers(1, 4), st.integers(1, 6), st.integers(0, 2**40), st.data())
def test_parts_and_streams_are_the_global_order(examples, count, local, seed, data):
    """Steps of all processes together hold every record once an epoch, wherever they begin."""
    batch = count * local
    parts = [Sampler(batch, seed, index, count) for index in range(count)]
    step = data.draw(st.integers(0, 10**6))
    steps = np.arange(step, step + 3)
    together = [part.indices(steps, examples) for part in parts]
    samples, records = (np.concatenate(each, axis=1) for each in zip(*together, strict=True))
    np.testing.assert_array_equal(samples.ravel(), np.arange(step * batch, (step + 3) * batch))
    np.testing.assert_array_equal(records, Sampler(batch, seed).indices(steps, examples)[1])
    epochs = samples.ravel() // examples
    for epoch in np.unique(epochs):
        held = records.ravel()[epochs == epoch]
        assert len(np.unique(held)) == len(held)
    streamed = list(itertools.islice(parts[-1].stream(step, examples, 2), 3))
    np.testing.assert_array_equal([found for found, _ in streamed], together[-1][1])
    assert all(numbers.shape == (local, 2) for _, numbers in streamed)


@pytest.mark.parametrize(("batch", "count"), [(4, 1), (5, 1), (6, 3), (17, 1)])
def test_epochs_of_whole_batches(batch, count):
    """The last images of each epoch's order that fill no batch are left out, others each time."""
    parts = [Sampler(batch, 3, index, count, drop_last=True) for index in range(count)]
    per_epoch = 17 // batch
    steps = np.arange(20 * per_epoch)
    together = [part.indices(steps, 17) for part in parts]
    samples, records = (np.concatenate(each, axis=1) for each in zip(*together, strict=True))
    np.testing.assert_array_equal(samples.ravel(), np.arange(len(steps) * batch))
    left_out = []
    for epoch in records.reshape(20, -1):
        assert len(set(epoch.tolist())) == per_epoch * batch
        left_out += set(range(17)) - set(epoch.tolist())
    assert len(set(left_out)) > 17 % batch or not left_out
    everything = Sampler(batch, 3).indices(np.arange(per_epoch), 17)[1]
    np.testing.assert_array_equal(records[:per_epoch], everything)  # the first epoch is the same


def test_a_batch_larger_than_the_data_set_drops_everything():
    with pytest.raises(UserError, match=r"drop_last: 17 images fill no batch of 18"):
        Sampler(18, 3, drop_last=True).indices(0, 17)


@pytest.mark.parametrize(("batch", "count"), [(0, 1), (-4, 2), (9, 2)])
def test_batches_that_cannot_be_shared(batch, count):
    with pytest.raises(UserError, match=rf"batch_size {batch}: .* multiple of the {count} proc"):
        Sampler(batch, seed=0, process_count=count)
