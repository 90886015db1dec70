"""Orders in which groups of records come up more or less often, against a plain count."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from uniface_jax.data.input.order import Order
from uniface_jax.data.input.sampler import Sampler

GROUPS = st.lists(st.tuples(st.integers(1, 9), st.integers(0, 20)), min_size=1, max_size=5)


@given(GROUPS.filter(lambda groups: any(quota for _, quota in groups)), st.integers(0, 2**40))
def test_every_epoch_holds_the_quotas_and_passes_are_whole(groups, seed):
    sizes, quotas = zip(*groups, strict=True)
    order = Order.of_groups(sizes, quotas)
    epochs = 4
    positions = np.tile(np.arange(order.length), epochs)
    numbers = np.repeat(np.arange(epochs), order.length)
    records = order.records(positions, seed, numbers)
    begins = np.cumsum([0, *sizes])
    for number, (size, quota) in enumerate(groups):
        mine = (records >= begins[number]) & (records < begins[number + 1])
        assert np.bincount(numbers[mine], minlength=epochs).tolist() == [quota] * epochs
        counts = np.bincount(records[mine] - begins[number], minlength=size)
        assert counts.max() - counts.min() <= 1  # none twice before all others were drawn


def test_orders_of_processes_are_parts_of_the_whole():
    order = Order.of_groups([40, 25], [20, 50])
    whole = Sampler(12, 7, order=order)
    samples, records = whole.indices(np.arange(30), 65)
    assert samples.ravel().tolist() == list(range(360))
    parts = [Sampler(12, 7, index, 3, order=order) for index in range(3)]
    found = [part.indices(np.arange(30), 65)[1] for part in parts]
    np.testing.assert_array_equal(np.concatenate(found, axis=1), records)
    streamed = next(parts[1].stream(17, 65, 1))[0]
    np.testing.assert_array_equal(streamed, records[17, 4:8])
    epochs = records.ravel()[:350].reshape(5, 70)
    assert not np.array_equal(epochs[0], epochs[1])
    whole_batches = Sampler(12, 7, drop_last=True, order=order).indices(np.arange(10), 65)[1]
    np.testing.assert_array_equal(whole_batches[:5], records[:5])


def test_an_order_of_the_largest_sets_is_far_from_overflowing():
    order = Order.of_groups([42_500_000, 17_000_000], [42_500_000, 34_000_000])
    samples, records = Sampler(4096, 2**40, order=order).indices(10**7, 59_500_000)
    assert samples[-1] == 10**7 * 4096 + 4095
    assert 0 <= records.min() < records.max() < 59_500_000
    second = (records >= 42_500_000).mean()
    assert abs(second - 34 / 76.5) < 0.05
