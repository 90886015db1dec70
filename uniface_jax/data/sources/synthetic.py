"""Faces-like JPEG images of any number of classes, without a disk: for measuring speed.

`synthetic:CLASSES:IMAGES` stands wherever a source is named. Image k is of class k mod CLASSES. The
bytes come from a pool of a few hundred smooth images, 112x112 and about 5 kB as aligned faces are,
chosen by class: all images of a class are the same one, and classes far apart share theirs.
"""

import re
from functools import cache

import cv2
import numpy as np

from uniface_jax.data.formats.image_size import IMAGE_SIZE
from uniface_jax.data.formats.images import encode_jpeg
from uniface_jax.data.sources.base import Item, Source, digest
from uniface_jax.errors import UserError

PREFIX = "synthetic:"
POOL = 509  # a prime, so that no round number of classes falls on few images
_LARGEST = 10**9


class SyntheticSource(Source):
    """The source `synthetic:CLASSES:IMAGES`; the same bytes on every machine of one OpenCV."""

    reopens_quickly = True

    def __init__(self, num_classes: int, num_images: int):
        self.num_classes, self._images = num_classes, num_images
        self.name = f"{PREFIX}{num_classes}:{num_images}"

    def __len__(self) -> int:
        return self._images

    def __getitem__(self, index: int) -> Item:
        if not 0 <= index < self._images:
            raise IndexError(index)
        label = index % self.num_classes
        return Item(_pool()[label % POOL], label, str(index))

    def sizes(self, indices: np.ndarray) -> np.ndarray:
        """The length of the images at `indices`."""
        lengths = np.array([len(image) for image in _pool()], np.int64)
        return lengths[indices % self.num_classes % POOL]

    def fingerprint(self) -> str:
        """Of the counts and of what each image of the pool holds."""
        pool = np.frombuffer(b"".join(_pool()), np.uint8)
        return digest(np.array([self.num_classes, self._images]), pool)


def parse_synthetic(text: str) -> SyntheticSource:
    """The source that `text` describes; UserError unless it is synthetic:CLASSES:IMAGES."""
    match = re.fullmatch(PREFIX + r"(\d{1,10}):(\d{1,10})", text)
    classes, images = (int(number) for number in match.groups()) if match else (0, 0)
    if not 1 <= classes <= images <= _LARGEST:
        raise UserError(
            f"{text}: expected {PREFIX}CLASSES:IMAGES with 1 <= CLASSES <= IMAGES <= {_LARGEST}"
        )
    return SyntheticSource(classes, images)


@cache
def _pool() -> list[bytes]:
    return [smooth_jpeg(number) for number in range(POOL)]


def smooth_jpeg(seed: int) -> bytes:
    """A JPEG [112, 112] of smooth noise with some detail, quality 95, about 5 kB."""
    random = np.random.RandomState(seed)
    coarse = random.uniform(0, 255, (7, 7, 3)).astype(np.float32)
    fine = random.normal(0, 14, (28, 28, 3)).astype(np.float32)
    size = (IMAGE_SIZE, IMAGE_SIZE)
    pixels = cv2.add(
        cv2.resize(coarse, size, interpolation=cv2.INTER_CUBIC),
        cv2.resize(fine, size, interpolation=cv2.INTER_CUBIC),
    )
    return encode_jpeg(np.clip(pixels, 0, 255).astype(np.uint8), 95)
