"""Landmarks: their coordinates, their mirror, and what is refused."""

import jax.numpy as jnp
import numpy as np
import pytest

from uniface_jax.data.formats.landmarks import TEMPLATE, checked, from_pixels, mirrored
from uniface_jax.errors import UserError


def test_the_mirror_of_landmarks_is_that_of_pixels():
    points = np.array([[10, 20], [80, 21], [50, 60], [30, 90], [70, 91]])
    image = np.zeros((112, 112), np.uint8)
    image[points[:, 1], points[:, 0]] = np.arange(1, 6)
    rows, columns = np.nonzero(image[:, ::-1])
    there = {
        int(image[:, ::-1][row, column]): (column, row)
        for row, column in zip(rows, columns, strict=True)
    }
    # What is now left of the nose is the left eye.
    expected = from_pixels(np.array([there[number] for number in (2, 1, 3, 5, 4)]))
    for array in (np.asarray, jnp.asarray):
        found = mirrored(array(from_pixels(points)))
        np.testing.assert_allclose(found, expected, atol=1e-6)
        assert found.dtype == np.float32
        np.testing.assert_allclose(mirrored(found), from_pixels(points), atol=1e-6)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([0.5] * 9, "f: no landmarks; expected the x and y of five points"),
        (None, "no landmarks"),
        (["a"] * 10, "no landmarks"),
        (TEMPLATE.tolist(), r"f: a landmark at 38.2946; expected 0..1, .* \(x \+ 0.5\) / 112"),
        ([float("nan")] * 10, "a landmark at nan"),
    ],
)
def test_what_are_no_landmarks(values, message):
    with pytest.raises(UserError, match=message):
        checked(values, "f")
