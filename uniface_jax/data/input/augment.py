"""Augmentations of one training face: functions of an image and random numbers, by OpenCV.

register_augmentation adds one from outside. Each of those here takes a uint8 image [H, W, 3] and
numbers in 0 ≤ u < 1, and gives an image of the same shape and type; the one given is left as it
is. They hold no state, so the numbers alone decide; these are drawn for whole batches (shuffle.py).
`augmentations` lists those that a config switches on; the others cost nothing.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from typing import Any, NamedTuple, Protocol, TypeVar

import cv2
import numpy as np
from PIL import Image

from uniface_jax.data.input.geometry import (
    Size,
    affine_matrix,
    crop_window,
    landmarks_by_affine,
    landmarks_in_crop,
)
from uniface_jax.data.input.masks import MASK_NUMBERS, draw_mask
from uniface_jax.errors import UserError
from uniface_jax.registry import Hyperparameter, Range, Registry

Numbers = Sequence[float]


class Augmentation(NamedTuple):
    """A function of (image, numbers), and how many numbers it takes."""

    numbers: int
    apply: Callable[[np.ndarray, Numbers], np.ndarray]


SEED_NUMBERS = 3  # that seed the generator of an augmentation from outside; 24 random bits each

# The largest value of each strength and probability; the smallest is 0.
MAX_VALUES: Mapping[str, float] = {
    "downscale": 1.0, "blur": 1.0, "colour": 1.0, "grey": 1.0, "erase": 1.0, "crop": 0.9,
    "rotate": 180.0, "translate": 56.0, "scale": 0.9, "brightness": 1.0, "contrast": 1.0,
    "mask": 1.0,
}  # fmt: skip


class AugmentationFunction(Protocol):
    """A function of pixels, generator and hyperparameters, by keyword, to changed pixels."""

    def __call__(self, *args: Any, **kwargs: Any) -> np.ndarray:
        """Return uint8 [H, W, 3] of pixels, uint8 [H, W, 3], and a numpy Generator."""


class Outside(NamedTuple):
    """An augmentation from outside, as a config switches it on. It can be sent to a process."""

    name: str
    function: AugmentationFunction
    probability: float
    hyperparameters: Mapping[str, Any]


@dataclass(frozen=True)
class Augment:
    """Settings of what is done to training images; 0 is off.

    The probabilities, 0..1, of downscale, blur, colour and grey are those of insightface's set, in
    its order and with its values in brackets (dali_data_iter with dali_aug in
    recognition/arcface_torch/dataset.py; there the mirror comes last, which gives the same but for
    rounding).

    Attributes:
        flip: mirror left and right with probability 1/2.
        downscale: probability of 0.5..0.8 of the size and back (0.1).
        blur: probability of a Gaussian over 3 or 5 pixels (0.2).
        colour: probability of a hue turned by 0..20° and saturation times 1..1.2 (0.2).
        grey: probability of no color (0.1).
        crop: at most this share of the side, 0..0.9, is cut off and the rest enlarged.
        rotate: degrees, 0..180; uniform in ± this value.
        translate: pixels, 0..56; uniform in ± this value.
        scale: fraction of the size, 0..0.9; uniform in ± this value.
        brightness: fraction of full white added, 0..1; uniform in ± this value.
        contrast: fraction of the distance from the image's mean, 0..1; uniform in ± this value.
        mask: probability, 0..1, of a face mask, drawn by the alignment before all but the mirror.
        erase: probability, 0..1, of a rectangle of one color, 2..20 % of the area.
        outside: augmentations from outside, applied last and in this order.

    Raises:
        UserError: a value is of another type or range; the message names the key.
    """

    flip: bool = True
    downscale: float = 0.0
    blur: float = 0.0
    colour: float = 0.0
    grey: float = 0.0
    crop: float = 0.0
    rotate: float = 0.0
    translate: float = 0.0
    scale: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    erase: float = 0.0
    mask: float = 0.0
    outside: tuple[Outside, ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.flip, bool):
            raise UserError(f"augment.flip is {self.flip!r}; allowed are True and False")
        for key, highest in MAX_VALUES.items():
            value = getattr(self, key)
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not number or not 0 <= value <= highest:
                raise UserError(f"augment.{key} is {value!r}; allowed is a number 0..{highest:g}")

    @classmethod
    def from_mapping(cls, values: Any) -> "Augment":
        """Return what a mapping asks for, such as a section of a config.

        What is registered from outside stands under its name, as {"fog": {"probability": 0.1}}.

        Raises:
            UserError: a key is unknown, or a value is not allowed.

        Example:
            >>> Augment.from_mapping({"rotate": 10}).rotate
            10
        """
        known = [field.name for field in fields(cls) if field.name != "outside"]
        there = [*known, *AUGMENTATIONS]
        if unknown := sorted(set(values) - set(there)):
            raise UserError(f"augment.{unknown[0]}: no such key; there are {', '.join(there)}")
        own = {key: values[key] for key in known if key in values}
        return cls(**own, outside=_chosen(values))


AUGMENTATIONS: Registry[AugmentationFunction] = Registry(
    "augmentation",
    "data.augment",
    given=("pixels", "generator"),
    common={
        "probability": Hyperparameter(
            0.0, Range("from 0 (off) to 1", lambda value: 0 <= value <= 1)
        )
    },
    reserved=[field.name for field in fields(Augment)],
)
Function = TypeVar("Function", bound=AugmentationFunction)


def register_augmentation(name: str, **ranges: Range) -> Callable[[Function], Function]:
    """Return a decorator that registers a function as the augmentation `name`.

    The function takes `pixels`, uint8 RGB [112, 112, 3], which it may change, and `generator`, a
    numpy Generator whose numbers depend on the config's seed and on the sample's place in the run
    alone; it returns pixels of the same shape and type. Landmarks, for a network that takes them,
    stay where they were: it is not to move pixels then. The config's data.augment.NAME.probability
    switches it on, its hyperparameters are data.augment.NAME.KEY. All from outside come after those
    of this package, by name. It may run in decoding processes, which import its module.

    Args:
        name: Lower-case letters, digits and underscores.
        **ranges: The Range of each hyperparameter, by its name in the function's signature.

    Raises:
        UserError: At the decorated function, for a name that is taken, or a hyperparameter without
            a default or range.

    >>> import numpy as np
    >>> from uniface_jax import Range, register_augmentation
    >>> @register_augmentation("doc_noise", level=Range("> 0", lambda level: level > 0))
    ... def doc_noise(pixels, generator, level: float = 4.0):
    ...     noisy = pixels + generator.normal(0, level, pixels.shape)
    ...     return np.clip(noisy, 0, 255).astype(np.uint8)
    """
    return AUGMENTATIONS.decorator(name, ranges)


def _chosen(values: Mapping[str, Any]) -> tuple[Outside, ...]:
    """Return the augmentations from outside that a mapping switches on, by name."""
    chosen = []
    for entry in AUGMENTATIONS.from_outside():
        given = entry.checked(values.get(entry.name) or {}, f"data.augment.{entry.name}.")
        given = {**entry.defaults, **given}
        probability = given.pop("probability")
        if probability:
            chosen.append(Outside(entry.name, entry.part, probability, given))
    return tuple(chosen)


def augmentations(config: Augment) -> list[Augmentation]:
    """Return the functions that `config` switches on, in the order in which they are applied."""
    chosen: list[Augmentation] = []
    if config.flip:
        chosen.append(Augmentation(1, random_flip))
    for probability, numbers, function in (
        (config.mask, MASK_NUMBERS, draw_mask),
        (config.downscale, 1, downscale),
        (config.blur, 1, blur),
        (config.colour, 2, shift_color),
        (config.grey, 0, remove_color),
    ):
        if probability:
            chosen.append(Augmentation(1 + numbers, partial(sometimes, function, probability)))
    if config.crop:
        chosen.append(Augmentation(3, partial(random_crop, crop=config.crop)))
    if config.rotate or config.translate or config.scale:
        affine = partial(
            random_affine, rotate=config.rotate, translate=config.translate, scale=config.scale
        )
        chosen.append(Augmentation(4, affine))
    if config.brightness or config.contrast:
        tone = partial(random_tone, brightness=config.brightness, contrast=config.contrast)
        chosen.append(Augmentation(2, tone))
    if config.erase:
        chosen.append(Augmentation(8, partial(sometimes, erase, config.erase)))
    for outside in config.outside:
        function = partial(apply_outside, outside)
        chosen.append(
            Augmentation(1 + SEED_NUMBERS, partial(sometimes, function, outside.probability))
        )
    return chosen


def augment(image: np.ndarray, functions: Sequence[Augmentation], numbers: Numbers) -> np.ndarray:
    """Return `image` after all functions, each with its share of `numbers`, in order.

    Example:
        >>> functions = augmentations(Augment(flip=True))
        >>> image = np.arange(12, dtype=np.uint8).reshape(1, 4, 3)
        >>> augment(image, functions, [0.2])[0, :, 0].tolist()  # below 1/2: mirrored
        [9, 6, 3, 0]
    """
    used = 0
    for function in functions:
        image = function.apply(image, numbers[used : used + function.numbers])
        used += function.numbers
    return image


def move_landmarks(
    landmarks: np.ndarray, functions: Sequence[Augmentation], numbers: Numbers, size: Size
) -> np.ndarray:
    """Return where landmarks [5, 2] are after all functions, by the numbers that augment is given.

    size: the image's height and width.
    """
    used = 0
    for function in functions:
        applied = function.apply
        if isinstance(applied, partial) and applied.func in _MOVES:
            given = numbers[used : used + function.numbers]
            landmarks = _MOVES[applied.func](landmarks, given, size, **applied.keywords)
        used += function.numbers
    return landmarks


def apply_outside(chosen: Outside, image: np.ndarray, uniform: Numbers) -> np.ndarray:
    """Return what an augmentation from outside makes of `image`. uniform: [SEED_NUMBERS].

    Raises UserError, naming it, where that is no image of the same shape and type.
    """
    generator = np.random.default_rng([int(u * 2**24) for u in uniform])
    result = chosen.function(pixels=image.copy(), generator=generator, **chosen.hyperparameters)
    found = np.asarray(result)
    if found.shape != image.shape or found.dtype != np.uint8:
        raise UserError(
            f"augmentation {chosen.name!r}: returned {found.dtype} {list(found.shape)}; expected "
            f"uint8 {list(image.shape)}"
        )
    return found


def sometimes(
    function: Callable[[np.ndarray, Numbers], np.ndarray],
    probability: float,
    image: np.ndarray,
    uniform: Numbers,
) -> np.ndarray:
    """Apply `function` with a probability; the first number decides, the rest are its own."""
    return function(image, uniform[1:]) if uniform[0] < probability else image


def random_flip(image: np.ndarray, uniform: Numbers) -> np.ndarray:
    """Mirror left and right with probability 1/2; uniform: [1]."""
    return cv2.flip(image, 1) if uniform[0] < 0.5 else image


def downscale(image: np.ndarray, uniform: Numbers) -> np.ndarray:
    """Shrink to 0.5..0.8 of the size and enlarge again: a face that was far away. uniform: [1].

    112 pixels to 56..89, as in insightface's set, by DALI's default filters: a triangle as wide as
    the step between pixels downward, bilinear upward, which is what Pillow calls BILINEAR.
    """
    height, width = image.shape[:2]
    low, high = (np.floor(np.multiply((width, height), share)) for share in (0.5, 0.8))
    size = np.maximum(1, np.rint(low + (high - low) * uniform[0])).astype(int).tolist()
    small = Image.fromarray(image).resize(size, Image.Resampling.BILINEAR)
    return np.asarray(small.resize((width, height), Image.Resampling.BILINEAR))


def blur(image: np.ndarray, uniform: Numbers) -> np.ndarray:
    """Blur by a Gaussian over 3x3 or 5x5 pixels, of DALI's deviations 0.8 and 1.1. uniform: [1]."""
    window, deviation = (3, 0.8) if uniform[0] < 0.5 else (5, 1.1)
    return cv2.GaussianBlur(image, (window, window), deviation, borderType=cv2.BORDER_REFLECT_101)


# DALI's numbers (dali/operators/image/color/color_twist.h).
_TO_YIQ = np.array([[0.299, 0.587, 0.114], [0.596, -0.274, -0.321], [0.211, -0.523, 0.311]])
_FROM_YIQ = np.linalg.inv(_TO_YIQ)


def shift_color(image: np.ndarray, uniform: Numbers) -> np.ndarray:
    """Turn the hue by 0..20 degrees and multiply saturation by 1..1.2, in YIQ. uniform: [2].

    In the direction of DALI's fn.hsv: red toward yellow.
    """
    angle, saturation = math.radians(20.0 * uniform[0]), 1.0 + 0.2 * uniform[1]
    cosine, sine = saturation * math.cos(angle), saturation * math.sin(angle)
    turn = np.array([[1.0, 0.0, 0.0], [0.0, cosine, sine], [0.0, -sine, cosine]])
    return cv2.transform(image, _FROM_YIQ @ turn @ _TO_YIQ)


def remove_color(image: np.ndarray, uniform: Numbers) -> np.ndarray:
    """Return three equal channels of the luma. uniform: []."""
    return cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)


def random_crop(image: np.ndarray, uniform: Numbers, crop: float) -> np.ndarray:
    """Cut a window of 1 - crop .. 1 of the side anywhere and enlarge it. uniform: [3]."""
    height, width = image.shape[:2]
    top, left, rows, columns = crop_window((height, width), uniform, crop)
    window = image[top : top + rows, left : left + columns]
    return cv2.resize(window, (width, height), interpolation=cv2.INTER_LINEAR)


def random_affine(
    image: np.ndarray, uniform: Numbers, rotate: float, translate: float, scale: float
) -> np.ndarray:
    """Turn, scale and shift about the center, bilinear; the border repeats. uniform: [4]."""
    height, width = image.shape[:2]
    return cv2.warpAffine(
        image,
        affine_matrix((height, width), uniform, rotate, translate, scale),
        (width, height),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )


# What moves pixels -> what moves landmarks, by the same numbers.
_MOVES: Mapping[Callable[..., np.ndarray], Callable[..., np.ndarray]] = {
    random_crop: landmarks_in_crop, random_affine: landmarks_by_affine,
}  # fmt: skip
_LEVELS = np.arange(256, dtype=np.float64)


def random_tone(
    image: np.ndarray, uniform: Numbers, brightness: float, contrast: float
) -> np.ndarray:
    """Stretch pixels from the image's mean, and add the same to all. uniform: [2]."""
    stretch = 1.0 + (2.0 * uniform[0] - 1.0) * contrast
    added = (2.0 * uniform[1] - 1.0) * 255.0 * brightness
    mean = sum(cv2.mean(image)[:3]) / 3
    table = np.clip(np.rint((_LEVELS - mean) * stretch + mean + added), 0, 255)
    return cv2.LUT(image, table.astype(np.uint8))


def erase(image: np.ndarray, uniform: Numbers) -> np.ndarray:
    """Paint a rectangle of one color over 2..20 % of the area, sides 1:3.3 to 3.3:1. uniform: [7].

    Zhong et al., "Random Erasing Data Augmentation", AAAI 2020, with one color a rectangle.
    """
    height, width = image.shape[:2]
    area = (0.02 + 0.18 * uniform[0]) * height * width
    aspect = math.exp((2.0 * uniform[1] - 1.0) * math.log(3.3))
    rows = min(height, max(1, round(math.sqrt(area * aspect))))
    columns = min(width, max(1, round(math.sqrt(area / aspect))))
    top = int(uniform[2] * (height - rows + 1))
    left = int(uniform[3] * (width - columns + 1))
    result = image.copy()
    result[top : top + rows, left : left + columns] = [int(256 * u) for u in uniform[4:7]]
    return result
