"""Augmentations of one training face: TensorFlow functions of an image and random numbers.

Each takes a uint8 image [H, W, 3] and float32 numbers in 0..1, and returns the same shape and type;
it holds no state, so the numbers alone decide. They are drawn for whole batches (shuffle.py), since
TensorFlow's own stateless generators cost as much as decoding the image. `augmentations` lists what
a config switches on; what is off costs nothing.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import partial
from typing import Any, NamedTuple

from uniface_jax.errors import UserError


class Augmentation(NamedTuple):
    """A function of (image, uniform [numbers]), and how many numbers it takes."""

    numbers: int
    apply: Callable[[Any, Any], Any]


_HIGHEST = {"rotate": 180.0, "translate": 56.0, "scale": 0.9, "brightness": 1.0, "contrast": 1.0}


@dataclass(frozen=True)
class Augment:
    """What is done to training images; every amplitude is uniform in ±value, and 0 is off.

    flip: mirror left and right with probability 1/2. rotate: degrees, 0..180. translate: pixels,
    0..56. scale: fraction of the size, 0..0.9. brightness: fraction of full white added, 0..1.
    contrast: fraction of the distance from the image's mean, 0..1.
    Raises UserError naming the key where a value is of another type or range.
    """

    flip: bool = True
    rotate: float = 0.0
    translate: float = 0.0
    scale: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0

    def __post_init__(self) -> None:
        if not isinstance(self.flip, bool):
            raise UserError(f"augment.flip is {self.flip!r}; allowed are True and False")
        for key, highest in _HIGHEST.items():
            value = getattr(self, key)
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not number or not 0 <= value <= highest:
                raise UserError(f"augment.{key} is {value!r}; allowed is a number 0..{highest:g}")

    @classmethod
    def from_mapping(cls, values: Any) -> "Augment":
        """From a mapping, such as a section of a config; UserError on unknown keys."""
        known = [field.name for field in fields(cls)]
        unknown = sorted(set(values) - set(known))
        if unknown:
            raise UserError(f"augment.{unknown[0]}: no such key; there are {', '.join(known)}")
        return cls(**dict(values))


def augmentations(config: Augment) -> list[Augmentation]:
    """The functions that `config` switches on, in the order in which they are applied."""
    chosen: list[Augmentation] = []
    if config.flip:
        chosen.append(Augmentation(1, random_flip))
    if config.rotate or config.translate or config.scale:
        affine = partial(
            random_affine, rotate=config.rotate, translate=config.translate, scale=config.scale
        )
        chosen.append(Augmentation(4, affine))
    if config.brightness or config.contrast:
        tone = partial(random_tone, brightness=config.brightness, contrast=config.contrast)
        chosen.append(Augmentation(2, tone))
    return chosen


def random_flip(image: Any, uniform: Any) -> Any:
    """Mirrors left and right with probability 1/2; uniform: [1]."""
    import tensorflow as tf

    # Not tf.where, which takes longer over the uint8 pixels than decoding the image does.
    return tf.cond(uniform[0] < 0.5, lambda: tf.reverse(image, [1]), lambda: image)


def random_affine(image: Any, uniform: Any, rotate: float, translate: float, scale: float) -> Any:
    """Turns, scales and shifts about the centre, bilinear; the border repeats. uniform: [4]."""
    import tensorflow as tf

    amplitude = 2.0 * uniform - 1.0
    angle, zoom = amplitude[0] * math.radians(rotate), 1.0 + amplitude[1] * scale
    shift = amplitude[2:] * translate
    height, width = image.shape[0], image.shape[1]
    centre = tf.constant([(width - 1) / 2, (height - 1) / 2])
    # The op asks where an output pixel comes from: the inverse of turn, zoom, then shift.
    cosine, sine = tf.cos(angle) / zoom, tf.sin(angle) / zoom
    x, y = tf.unstack(-centre - shift)
    row_x = [cosine, sine, centre[0] + cosine * x + sine * y]
    row_y = [-sine, cosine, centre[1] - sine * x + cosine * y]
    warped = tf.raw_ops.ImageProjectiveTransformV3(
        images=tf.cast(image, tf.float32)[None],
        transforms=tf.stack([*row_x, *row_y, 0.0, 0.0])[None],
        output_shape=[height, width],
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode="NEAREST",
    )[0]
    return _to_uint8(warped)


def random_tone(image: Any, uniform: Any, brightness: float, contrast: float) -> Any:
    """Stretches pixels from the image's mean, and adds the same to all. uniform: [2]."""
    import tensorflow as tf

    amplitude = 2.0 * uniform - 1.0
    pixels = tf.cast(image, tf.float32)
    mean = tf.reduce_mean(pixels)
    stretched = (pixels - mean) * (1.0 + amplitude[0] * contrast) + mean
    return _to_uint8(stretched + amplitude[1] * (255.0 * brightness))


def _to_uint8(pixels: Any) -> Any:
    import tensorflow as tf

    return tf.cast(tf.clip_by_value(tf.round(pixels), 0.0, 255.0), tf.uint8)
