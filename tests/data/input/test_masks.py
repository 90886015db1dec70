"""Drawn masks: where they lie, on faces of any size, and that numbers alone decide."""

import cv2
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from uniface_jax.data.formats.landmarks import TEMPLATE
from uniface_jax.data.input.augment import Augment, augment, augmentations
from uniface_jax.data.input.masks import BRIDGE, MASK_NUMBERS, draw_mask

NUMBERS = st.lists(
    st.floats(0, 1, exclude_max=True, width=32), min_size=MASK_NUMBERS, max_size=MASK_NUMBERS
)
NOISE = np.random.RandomState(0).randint(0, 256, (112, 112, 3), np.uint8)


@given(NUMBERS, st.sampled_from([(112, 112), (224, 224), (96, 112)]))
def test_a_mask_covers_mouth_and_chin_and_nothing_above_the_bridge(numbers, size):
    face = cv2.resize(NOISE, size[::-1])
    before = face.copy()
    masked = draw_mask(face, numbers)
    np.testing.assert_array_equal(face, before)
    assert (masked.shape, masked.dtype) == (face.shape, np.uint8)
    np.testing.assert_array_equal(draw_mask(face, numbers), masked)
    bridge = int(np.ceil(BRIDGE * size[0]))
    np.testing.assert_array_equal(masked[:bridge], face[:bridge])
    assert TEMPLATE[:2, 1].max() < BRIDGE * 112 < TEMPLATE[2, 1]
    covered = (draw_mask(np.zeros_like(face), numbers) == draw_mask(face, numbers)).all(2)
    scale = np.array(size) / 112
    for x, y in (*TEMPLATE[2:], [TEMPLATE[2, 0], 104]):  # nose, corners of the mouth, chin
        row, column = (np.array([y, x]) * scale).astype(int)
        assert covered[row, column]
    assert 0.15 < covered.mean() < 0.5


def test_masks_differ_in_shape_color_and_texture():
    plain = [0.5] * MASK_NUMBERS
    first = draw_mask(NOISE, plain)
    for place in range(MASK_NUMBERS):
        changed = [*plain]
        changed[place] = 0.9
        if place != 9 or changed[8] < 0.7:
            assert (draw_mask(NOISE, changed) != first).any(), place


def test_masks_come_first_and_with_their_probability():
    assert augmentations(Augment(flip=False, mask=0.0)) == []
    functions = augmentations(Augment(flip=False, mask=0.3, grey=1.0))
    assert [function.numbers for function in functions] == [1 + MASK_NUMBERS, 1]
    rows = np.random.RandomState(2).rand(300, 2 + MASK_NUMBERS).tolist()
    (mask, grey) = functions
    changed = [(mask.apply(NOISE, row[:-1]) != NOISE).any() for row in rows]
    assert 0.2 < np.mean(changed) < 0.4
    expected = grey.apply(mask.apply(NOISE, rows[0][:-1]), rows[0][-1:])
    np.testing.assert_array_equal(augment(NOISE, functions, rows[0]), expected)
