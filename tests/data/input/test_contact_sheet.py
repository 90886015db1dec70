"""The picture of what a network is about to be trained on."""

import numpy as np

from uniface_jax.data.formats import images
from uniface_jax.data.input.augment import Augment
from uniface_jax.data.input.contact_sheet import chosen_records, contact_sheet
from uniface_jax.data.sources.folders import FolderSource
from uniface_jax.data.sources.opening import open_source


def test_rows_hold_the_images_and_their_mirrors(faces):
    source = FolderSource(faces)
    sheet = contact_sheet(source, Augment(), identities=2, columns=3, seed=0)
    assert sheet.shape == (2 * (22 + 2 * 116), 3 * 116, 3)
    records = next(iter(chosen_records(source, 2, 3, 0).values()))
    for place, record in enumerate(records):
        face = images.decode(source[record].image, "a")
        left = slice(place * 116, place * 116 + 112)
        np.testing.assert_array_equal(sheet[22:134, left], face)
        below = sheet[138:250, left]
        assert (below == face).all() or (below == face[:, ::-1]).all()


def test_few_images_leave_gaps_and_large_sets_are_not_read_whole():
    few = chosen_records(open_source("synthetic:3:5"), 8, 4, 0)
    assert {label: len(records) for label, records in few.items()} == {0: 2, 1: 2, 2: 1}
    many = chosen_records(open_source("synthetic:97:900000000"), 8, 4, 0)
    assert [len(records) for records in many.values()] == [4] * 8
