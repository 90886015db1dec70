"""Landmarks stay on the pixels that they were on, whatever moves these."""

import numpy as np
import pytest

from uniface_jax.data.formats.landmarks import TEMPLATE, from_pixels
from uniface_jax.data.input.augment import Augment, augment, augmentations, move_landmarks

SIZE = (112, 112)


def spot(x, y):
    """An image that is brightest at x, y, which are pixels."""
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    peak = np.round(250 * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / 32)).astype(np.uint8)
    return np.repeat(peak[..., None], 3, axis=2)


def center(image):
    """The center of mass of what is bright, x and y in pixels."""
    weight = image[..., 0].astype(float)
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    return np.array([(weight * columns).sum(), (weight * rows).sum()]) / weight.sum()


@pytest.mark.parametrize(
    "settings",
    [
        dict(crop=0.2),
        dict(rotate=20, translate=4, scale=0.1),
        dict(downscale=1.0, crop=0.1, rotate=10, blur=1.0, contrast=0.1),
    ],
    ids=["crop", "affine", "among others"],
)
def test_landmarks_move_with_their_pixels(settings):
    functions = augmentations(Augment(flip=False, **settings))
    count, compared = sum(function.numbers for function in functions), 0
    for uniform in np.random.default_rng(0).uniform(0.1, 1, (8, count)).tolist():
        moved = move_landmarks(from_pixels(TEMPLATE), functions, uniform, SIZE)
        assert moved.dtype == np.float32
        assert np.abs(moved - from_pixels(TEMPLATE)).max() > 1e-3
        for point, (x, y) in zip(moved, TEMPLATE, strict=True):
            if not ((point > 0.1) & (point < 0.9)).all():  # the spot is cut off
                continue
            compared += 1
            found = from_pixels(center(augment(spot(x, y), functions, uniform)))
            np.testing.assert_allclose(found, point, atol=0.5 / 112)
    assert compared > 20


def test_what_moves_no_pixel_moves_no_landmark():
    still = dict(downscale=1.0, blur=1.0, colour=1.0, grey=1.0, brightness=0.5, erase=1.0)
    functions = augmentations(Augment(flip=False, **still))
    uniform = [0.3] * sum(function.numbers for function in functions)
    points = from_pixels(TEMPLATE)
    np.testing.assert_array_equal(move_landmarks(points, functions, uniform, SIZE), points)
