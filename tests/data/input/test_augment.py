import dataclasses

import numpy as np
import pytest
from PIL import Image

from tests.helpers.registered import forgotten
from uniface_jax.data.input.augment import (
    Augment,
    augment,
    augmentations,
    blur,
    downscale,
    erase,
    random_affine,
    random_crop,
    random_flip,
    random_tone,
    register_augmentation,
    remove_color,
    shift_color,
)
from uniface_jax.data.input.masks import draw_mask
from uniface_jax.errors import UserError
from uniface_jax.registry import above

RANDOM = np.random.RandomState(0)
FACE = np.kron(RANDOM.randint(0, 256, (14, 14, 3)), np.ones((8, 8, 1))).astype(np.uint8)


def many(function, image, count=60):
    numbers = np.random.RandomState(3).rand(count, 4).astype(np.float32)
    before = image.copy()
    results = np.stack([function(image, uniform) for uniform in numbers.tolist()])
    assert (image == before).all()
    return results


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


SETS = {
    "downscale": downscale, "blur": blur, "colour": shift_color, "grey": remove_color,
    "crop": lambda image, uniform: random_crop(image, uniform, 0.5), "erase": erase,
    "mask": draw_mask,
}  # fmt: skip


def numbers_of(name):
    """Numbers of the function itself, without the one that decides whether it is applied."""
    (function,) = augmentations(Augment(flip=False, **{name: 0.5}))
    return function.numbers - (name != "crop")


@pytest.mark.parametrize("name", SETS)
def test_functions_of_the_numbers_alone(name):
    random = np.random.RandomState(1)
    rows = [random.rand(numbers_of(name)).tolist() for _ in range(4)]
    before = FACE.copy()
    results = [SETS[name](FACE, row) for row in rows]
    assert (before == FACE).all()
    for row, result in zip(rows, results, strict=True):
        assert (result.shape, result.dtype) == (FACE.shape, np.uint8)
        assert (result != FACE).any()
        np.testing.assert_array_equal(SETS[name](FACE, row), result)
    different = {result.tobytes() for result in results}
    assert len(different) == {"grey": 1, "blur": 2}.get(name, 4)
    flat = np.full((20, 30, 3), 99, np.uint8)
    if name not in ("erase", "mask"):
        np.testing.assert_allclose(SETS[name](flat, rows[0]).astype(int), 99, atol=1)


@pytest.mark.parametrize("name", [name for name in SETS if name != "crop"])
def test_probabilities(name):
    def share(probability):
        (function,) = augmentations(Augment(flip=False, **{name: probability}))
        rows = np.random.RandomState(2).rand(300, function.numbers)
        return np.mean([(function.apply(FACE, row.tolist()) != FACE).any() for row in rows])

    assert share(1.0) == 1
    assert 0.15 < share(0.25) < 0.35


def test_grey_is_the_luma():
    grey = remove_color(FACE, [])
    assert (grey == grey[..., :1]).all()
    np.testing.assert_allclose(grey[..., 0], FACE @ [0.299, 0.587, 0.114], atol=1)


def test_hue_turns_and_saturation_grows():
    red = np.tile(np.uint8([150, 90, 90]), (4, 4, 1))
    np.testing.assert_allclose(shift_color(red, [0, 0]), red, atol=1)
    strong = shift_color(red, [0, 0.9999])[0, 0].astype(int)
    assert strong[0] > 150
    assert strong[1] < 90
    # What the matrices of DALI's color_twist.h give for (150, 90, 90), 20 degrees and 1.
    np.testing.assert_allclose(shift_color(red, [1.0, 0])[0, 0], [143.98, 97.90, 65.12], atol=0.6)


def test_blur_has_dalis_deviations():
    point = np.zeros((11, 11, 3), np.uint8)
    point[5, 5] = 255
    for number, window, deviation in ((0.1, 3, 0.8), (0.9, 5, 1.1)):
        weights = np.exp(-0.5 * (np.arange(window) - window // 2) ** 2 / deviation**2)
        expected = 255 * np.outer(weights, weights) / weights.sum() ** 2
        reach = slice(5 - window // 2, 6 + window // 2)
        np.testing.assert_allclose(blur(point, [number])[reach, reach, 0], expected, atol=1)


def test_downscale_is_pillows_bilinear_to_56_to_89_pixels():
    face = Image.fromarray(np.random.RandomState(7).randint(0, 256, (112, 112, 3), np.uint8))
    for number, size in ((0, 56), (0.5, 72), (0.99999, 89)):
        small = face.resize((size, size), Image.Resampling.BILINEAR)
        expected = np.asarray(small.resize((112, 112), Image.Resampling.BILINEAR))
        np.testing.assert_array_equal(downscale(np.asarray(face), [number]), expected)


def test_erased_area_and_crops_stay_in_range():
    black = np.zeros((112, 112, 3), np.uint8)
    random = np.random.RandomState(5)
    for _ in range(50):
        row = [*random.rand(4), 0.9, 0.9, 0.9]
        share = (erase(black, row)[..., 0] > 0).mean()
        assert 0.018 < share < 0.21
    ramp = np.repeat(np.arange(112, dtype=np.uint8)[None, :, None] * 2, 112, 0).repeat(3, 2)
    for row in ([0, 0.5, 0.5], [0.9999, 0, 0], [0.9999, 0.9999, 0.9999]):
        cut = random_crop(ramp, row, 0.5)
        width = int(cut.max()) - int(cut.min())
        assert 222 * (1 - 0.5 * row[0]) - 8 <= width <= 222


def test_numbers_are_shared_out_in_order():
    functions = augmentations(Augment(erase=1, blur=1, brightness=0.5))
    numbers = np.random.RandomState(6).rand(sum(f.numbers for f in functions)).tolist()
    expected = random_flip(FACE, numbers[:1])
    expected = blur(expected, numbers[2:3])
    expected = random_tone(expected, numbers[3:5], 0.5, 0)
    expected = erase(expected, numbers[6:])
    np.testing.assert_array_equal(augment(FACE, functions, numbers), expected)


@pytest.fixture
def noise():
    """An augmentation from outside that changes the pixels it is given, in place."""
    with forgotten():

        @register_augmentation("noise", level=above(0))
        def noise(pixels, generator, level: float = 10.0):
            pixels += generator.integers(1, int(level), pixels.shape).astype(np.uint8)
            return pixels

        yield


def test_from_outside(noise):
    assert Augment.from_mapping({"noise": {"probability": 0.0}}).outside == ()
    config = Augment.from_mapping(
        {"flip": False, "erase": 0.0, "noise": {"probability": 0.5, "level": 4}}
    )
    functions = augmentations(config)
    numbers = np.random.RandomState(1).rand(200, functions[0].numbers).astype(np.float32).tolist()
    results = np.stack([augment(FACE, functions, each) for each in numbers])
    added = (results - FACE).reshape(200, -1)  # modulo 256
    changed = added.any(1)
    assert 70 < changed.sum() < 130
    assert set(np.unique(added[changed])) == {1, 2, 3}
    assert len(np.unique(added[changed], axis=0)) == changed.sum()  # every sample has its own
    again = np.stack([augment(FACE, functions, each) for each in numbers])
    np.testing.assert_array_equal(again, results)


def test_from_outside_refused(noise):
    with pytest.raises(UserError, match=r"data.augment.noise.level=0: must be > 0"):
        Augment.from_mapping({"noise": {"level": 0, "probability": 1.0}})
    with pytest.raises(
        UserError, match=r"augment.fog: no such key; there are flip, .*erase, .*noise"
    ):
        Augment.from_mapping({"fog": {"probability": 1.0}})
    register_augmentation("grow")(lambda pixels, generator: pixels.repeat(2, 0))
    config = Augment.from_mapping({"flip": False, "grow": {"probability": 1.0}})
    (grow,) = augmentations(config)
    with pytest.raises(UserError, match=r"augmentation 'grow': returned uint8 \[224, 112, 3\]; ex"):
        grow.apply(FACE, [0.0] * grow.numbers)
