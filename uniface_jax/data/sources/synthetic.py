"""Faces-like JPEG images of any number of classes, without a disk: for measuring speed.

`synthetic:CLASSES:IMAGES` stands wherever a source is named. Image k is of class k mod CLASSES. The
bytes come from a pool of a few hundred smooth images, 112x112 and about 5 kB as aligned faces are,
chosen by class: all images of a class are the same one, and classes far apart share theirs.
"""

import re
from functools import cache

import cv2
import numpy as np
from typing_extensions import override

from uniface_jax.data.formats.image_size import IMAGE_SIZE
from uniface_jax.data.formats.images import encode_jpeg
from uniface_jax.data.sources.base import Item, Source, digest
from uniface_jax.errors import UserError

PREFIX = "synthetic:"
POOL_IMAGES = 509  # a prime, so that no round number of classes falls on few images
_MAX_IMAGES = 10**9


class SyntheticSource(Source):
    """Source `synthetic:CLASSES:IMAGES`; the same bytes on every machine of one OpenCV.

    Example:
        >>> source = SyntheticSource(num_classes=3, num_images=10)
        >>> [source[i].label for i in range(4)]
        [0, 1, 2, 0]
    """

    reopens_quickly = True

    def __init__(self, num_classes: int, num_images: int):
        self.num_classes, self._images = num_classes, num_images
        self.name = f"{PREFIX}{num_classes}:{num_images}"

    @override
    def __len__(self) -> int:
        return self._images

    @override
    def __getitem__(self, index: int) -> Item:
        if not 0 <= index < self._images:
            raise IndexError(index)
        label = index % self.num_classes
        return Item(_pool()[label % POOL_IMAGES], label, str(index))

    @override
    def classes(self, indices: np.ndarray) -> np.ndarray:
        found: np.ndarray = indices % self.num_classes
        return found

    @override
    def sizes(self, indices: np.ndarray) -> np.ndarray:
        lengths = np.array([len(image) for image in _pool()], np.int64)
        return np.take(lengths, indices % self.num_classes % POOL_IMAGES)

    @override
    def fingerprint(self) -> str:
        pool = np.frombuffer(b"".join(_pool()), np.uint8)
        return digest(np.array([self.num_classes, self._images]), pool)


def parse_synthetic(text: str) -> SyntheticSource:
    """Return the source that `text` describes; UserError unless it is synthetic:CLASSES:IMAGES."""
    match = re.fullmatch(PREFIX + r"(\d{1,10}):(\d{1,10})", text)
    classes, images = (int(number) for number in match.groups()) if match else (0, 0)
    if not 1 <= classes <= images <= _MAX_IMAGES:
        raise UserError(
            f"{text}: expected {PREFIX}CLASSES:IMAGES with 1 <= CLASSES <= IMAGES <= {_MAX_IMAGES}"
        )
    return SyntheticSource(classes, images)


@cache
def _pool() -> list[bytes]:
    """Return the images of which every synthetic source consists."""
    return [smooth_jpeg(number) for number in range(POOL_IMAGES)]


def smooth_jpeg(seed: int) -> bytes:
    """Return a JPEG [112, 112] of smooth noise with some detail, quality 95, about 5 kB."""
    random = np.random.RandomState(seed)
    coarse = random.uniform(0, 255, (7, 7, 3)).astype(np.float32)
    fine = random.normal(0, 14, (28, 28, 3)).astype(np.float32)
    size = (IMAGE_SIZE, IMAGE_SIZE)
    pixels = cv2.add(
        cv2.resize(coarse, size, interpolation=cv2.INTER_CUBIC),
        cv2.resize(fine, size, interpolation=cv2.INTER_CUBIC),
    )
    return encode_jpeg(np.clip(pixels, 0, 255).astype(np.uint8), 95)
