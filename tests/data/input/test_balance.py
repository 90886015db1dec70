"""Balanced orders against a plain count of every epoch, and their tables against a sort."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from uniface_jax.data.input import balance
from uniface_jax.data.input.balance import BALANCES, class_order, quotas
from uniface_jax.data.input.sampler import Sampler
from uniface_jax.data.sources.base import Item, Source
from uniface_jax.errors import UserError


class Labeled(Source):
    """Records of given classes, of which some may have none."""

    name = "labeled"

    def __init__(self, labels, classes):
        self._labels, self.num_classes = labels, classes

    def __len__(self):
        return len(self._labels)

    def __getitem__(self, index):
        return Item(b"", self._labels[index], str(index))


LABELS = st.lists(st.integers(0, 6), min_size=1, max_size=40)


@given(LABELS, st.sampled_from(BALANCES), st.one_of(st.none(), st.integers(1, 9)), st.data())
def test_epochs_hold_the_quotas_of_every_class(labels, kind, cap, data):
    chunk = data.draw(st.integers(1, 50))
    source = Labeled(labels, 8)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(balance, "_CHUNK_RECORDS", chunk)
        order = class_order(source, [(len(labels), 1.0)], kind, cap)
    plain = np.argsort(labels, kind="stable")
    np.testing.assert_array_equal(order.table, plain)
    counts = np.bincount(labels, minlength=8)
    np.testing.assert_array_equal(order.quotas, quotas(counts, counts.astype(float), kind, cap))
    positions = np.tile(np.arange(order.length), 3)
    epochs = np.repeat(np.arange(3), order.length)
    records = order.records(positions, 5, epochs)
    for epoch in range(3):
        held = np.bincount(np.array(labels)[records[epochs == epoch]], minlength=8)
        np.testing.assert_array_equal(held, order.quotas)
    seen = np.bincount(records, minlength=len(labels))
    for label in set(labels):
        mine = seen[np.array(labels) == label]
        assert mine.max() - mine.min() <= 1


@given(LABELS, st.data())
def test_a_class_of_two_sets_is_seen_by_the_mean_of_their_ratios(labels, data):
    """Without balance and cap each class has round(sum of ratios of its images), at least 1."""
    first = data.draw(st.integers(0, len(labels)))
    ratios = [data.draw(st.sampled_from([0.25, 1.0, 3.0])) for _ in range(2)]
    shape = [(first, ratios[0]), (len(labels) - first, ratios[1])]
    order = class_order(Labeled(labels, 7), shape, "none", None)
    for label in range(7):
        mine = [ratios[place >= first] for place, each in enumerate(labels) if each == label]
        expected = max(round(sum(mine)), 1) if mine else 0
        assert order.quotas[label] == expected


def test_parts_of_a_balanced_step_are_the_whole_wherever_it_begins():
    labels = np.repeat(np.arange(5), [1, 2, 4, 8, 16]).tolist()
    order = class_order(Labeled(labels, 5), [(31, 1.0)], "classes", None)
    whole = Sampler(6, 3, order=order).indices(np.arange(20), 31)[1]
    parts = [Sampler(6, 3, index, 2, order=order).indices(np.arange(20), 31)[1] for index in (0, 1)]
    np.testing.assert_array_equal(np.concatenate(parts, axis=1), whole)
    np.testing.assert_array_equal(Sampler(6, 3, order=order).indices(17, 31)[1], whole[17])


def test_a_label_out_of_range_ends_the_run_before_it_begins():
    with pytest.raises(UserError, match=r"labeled: record 2 has the label 9, expected 0..2"):
        class_order(Labeled([0, 1, 9], 3), [(3, 1.0)], "classes", None)


def test_a_source_that_reads_images_for_its_classes_reads_each_once():
    class Counted(Labeled):
        read = 0

        def __getitem__(self, index):
            self.read += 1
            return super().__getitem__(index)

    source = Counted([0, 2, 1, 2], 3)
    assert class_order(source, [(4, 1.0)], "classes", None).table.tolist() == [0, 2, 1, 3]
    assert source.read == 4
