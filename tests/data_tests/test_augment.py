import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from uniface_jax.data.augment import (
    Augment,
    augmentations,
    random_affine,
    random_flip,
    random_tone,
)
from uniface_jax.errors import UserError

RANDOM = np.random.RandomState(0)
FACE = np.kron(RANDOM.randint(0, 256, (14, 14, 3)), np.ones((8, 8, 1))).astype(np.uint8)


def many(function, image, count=60):
    numbers = np.random.RandomState(3).rand(count, 4).astype(np.float32)
    pixels = tf.constant(image)
    return np.stack([function(pixels, tf.constant(uniform)).numpy() for uniform in numbers])


def test_defaults_and_order():
    assert augmentations(Augment()) == [(1, random_flip)]
    assert augmentations(Augment(flip=False)) == []
    assert len(augmentations(Augment(rotate=1, brightness=0.1))) == 3


def test_flip_is_a_mirror_half_of_the_time():
    results = many(random_flip, FACE, 400)
    mirrored = (results == FACE[:, ::-1]).all((1, 2, 3))
    same = (results == FACE).all((1, 2, 3))
    assert (mirrored ^ same).all()
    assert 150 < mirrored.sum() < 250


def test_affine_without_amplitude_is_the_identity():
    assert (many(lambda i, u: random_affine(i, u, 0, 0, 0), FACE, 2) == FACE).all()


def blob(x, y, size=61):
    rows, columns = np.mgrid[:size, :size]
    peak = np.round(255 * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / 18)).astype(np.uint8)
    return np.repeat(peak[..., None], 3, axis=2)


def centres(results):
    weight = results[..., 0].astype(float)
    grid = np.mgrid[: weight.shape[1], : weight.shape[2]]
    total = weight.sum((1, 2))
    return (
        np.stack([(weight * grid[1]).sum((1, 2)), (weight * grid[0]).sum((1, 2))], 1)
        / total[:, None]
    )


def test_affine_shifts_within_the_amplitude():
    moved = centres(many(lambda i, u: random_affine(i, u, 0, 4, 0), blob(30, 30))) - 30
    assert np.abs(moved).max() < 4.1
    assert (moved.std(0) > 1.5).all()
    assert np.abs(moved.mean(0)).max() < 1.2


def test_affine_turns_and_scales_about_the_centre():
    centre = centres(many(lambda i, u: random_affine(i, u, 30, 0, 0.3), blob(30, 30))) - 30
    assert np.abs(centre).max() < 0.1
    turned = centres(many(lambda i, u: random_affine(i, u, 30, 0, 0), blob(45, 30))) - 30
    np.testing.assert_allclose(np.hypot(*turned.T), 15, atol=0.2)
    angles = np.degrees(np.arctan2(turned[:, 1], turned[:, 0]))
    assert 25 < np.abs(angles).max() <= 30.5
    assert angles.min() < 0 < angles.max()
    scaled = centres(many(lambda i, u: random_affine(i, u, 0, 0, 0.3), blob(45, 30))) - 30
    assert 10.4 < scaled[:, 0].min() < 12
    assert 18 < scaled[:, 0].max() < 19.6


def test_affine_repeats_the_border():
    flat = np.full((20, 20, 3), 77, np.uint8)
    assert (many(lambda i, u: random_affine(i, u, 90, 10, 0.5), flat, 20) == 77).all()


def test_tone_ranges():
    grey = np.full((4, 4, 3), 100, np.uint8)
    brighter = many(lambda i, u: random_tone(i, u[:2], 0.2, 0), grey)[:, 0, 0, 0].astype(int)
    assert brighter.min() >= 49
    assert brighter.max() <= 151
    assert brighter.std() > 20
    assert (many(lambda i, u: random_tone(i, u[:2], 0, 0.9), grey, 5) == 100).all()
    stretched = many(lambda i, u: random_tone(i, u[:2], 0, 0.5), blob(30, 30)).astype(float)
    ratio = stretched.std((1, 2, 3)) / blob(30, 30).std()
    assert 0.45 < ratio.min() < 0.7
    assert ratio.max() > 1.0


@pytest.mark.parametrize(
    ("key", "value"),
    [("rotate", -1), ("rotate", 181), ("scale", 0.95), ("brightness", "much"), ("contrast", True),
     ("translate", float("nan")), ("flip", 1)],
)  # fmt: skip
def test_values_out_of_range_are_named(key, value):
    with pytest.raises(UserError, match=rf"augment\.{key} is {value!r}"):
        Augment(**{key: value})


def test_config_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Augment().flip = False
