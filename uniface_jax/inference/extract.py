"""Loop that runs a model over a set of images."""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from uniface_jax.data.formats import images as image_files
from uniface_jax.data.formats.image_headers import inspect
from uniface_jax.data.formats.image_size import IMAGE_SIZE
from uniface_jax.errors import UserError
from uniface_jax.inference.model import Embed

Inputs = tuple[np.ndarray, ...]  # of one image
_BYTES = np.dtype(np.uint8)


class Face(NamedTuple):
    """An image, encoded or uint8 RGB [112, 112, 3], and its landmarks, float32 [5, 2]."""

    image: bytes | np.ndarray
    landmarks: np.ndarray


def extract(
    embed: Embed,
    images: Sequence[bytes] | Sequence[np.ndarray] | Sequence[Face],
    *,
    name: str,
    batch_size: int = 64,
    progress: bool = True,
    label: Callable[[int], str] = "image {}".format,
) -> np.ndarray:
    """Return the features, float32 [N, D], of N images.

    Args:
        embed: maps uint8 RGB images [batch_size, 112, 112, 3], and landmarks where there are some,
            to features.
        images: encoded bytes, or uint8 RGB arrays [112, 112, 3]; with landmarks, a Face each.
        name: of the set, in errors and in the progress bar.
        batch_size: images that `embed` sees at a time, see extract_batches.
        progress: shows the bar, where there is a terminal.
        label: what errors call an image, behind the name.

    Raises:
        UserError: names the image that does not decode or is not 112x112, or whose feature is zero
            or not finite.

    Example:
        >>> images = np.full((3, 112, 112, 3), 7, np.uint8)
        >>> extract(lambda batch: batch[:, 0, 0].astype(np.float32), images, name="gray")
        array([[7., 7., 7.],
               [7., 7., 7.],
               [7., 7., 7.]], dtype=float32)
    """
    if not len(images):
        raise UserError(f"{name}: no images to embed")
    features: np.ndarray | None = None

    def name_of(index: int) -> str:
        return f"{name}: {label(index)}"

    def inputs(index: int) -> Inputs:
        given = images[index]
        if isinstance(given, Face):
            return checked_pixels(given.image, name_of(index)), given.landmarks
        return (checked_pixels(given, name_of(index)),)

    shown = progress and sys.stderr.isatty()
    with tqdm(total=len(images), desc=name, unit=" images", disable=not shown) as bar:
        batches = extract_batches(embed, inputs, len(images), batch_size, label=name_of)
        for start, found in batches:
            if features is None:
                features = np.empty((len(images), found.shape[1]), np.float32)
            features[start : start + len(found)] = found
            bar.update(len(found))
    assert features is not None
    return features


def extract_batches(
    embed: Embed,
    inputs: Callable[[int], Inputs],
    count: int,
    batch_size: int,
    *,
    start: int = 0,
    label: Callable[[int], str] = "image {}".format,
) -> Iterator[tuple[int, np.ndarray]]:
    """Yield the number of each batch's first image and its features float32 [<=batch_size, D].

    The images are those from `start` to `count` - 1. inputs: maps the number of an image to what
    `embed` takes of it, (uint8 RGB [112, 112, 3],) or that and landmarks [5, 2]; called by several
    threads at once. label: maps it to a name, for the
    UserError on a feature that no cosine can be taken of.
    Every batch that `embed` sees has `batch_size` images, the last one padded, so that a compiled
    one sees one shape; the next batch is decoded meanwhile.
    """
    if batch_size < 1:
        raise UserError(f"batch_size is {batch_size}; expected at least 1")
    with ThreadPoolExecutor(os.cpu_count()) as pool:

        def submit(first: int) -> list[Future[Inputs]]:
            return [pool.submit(inputs, i) for i in range(first, min(first + batch_size, count))]

        ahead = submit(start)
        for first in range(start, count, batch_size):
            current, ahead = ahead, submit(first + batch_size)
            # A new array each time: JAX on CPU may still read from the one before.
            parts = current[0].result()
            batch = [np.zeros((batch_size, *part.shape), part.dtype) for part in parts]
            for row, decoded in enumerate(current):
                for array, part in zip(batch, decoded.result(), strict=True):
                    array[row] = part
            found = np.asarray(embed(*batch), np.float32)[: len(current)]
            check_features(found, first, label)
            yield first, found


def check_features(features: np.ndarray, first: int, label: Callable[[int], str]) -> None:
    """Raise UserError for the first of features [K, D] of no use; row 0 is of image `first`.

    label: maps the number of an image to its name.
    """
    if not features.shape[1]:
        raise UserError(f"{label(first)}: the model gives a feature of no numbers")
    finite = np.isfinite(features).all(1)
    for usable, problem in ((finite, "holds nan or infinity"), (features.any(1), "is zero")):
        if not usable.all():
            row = int(np.argmin(usable))
            raise UserError(
                f"{label(first + row)}: the feature that the model gives {problem}; expected "
                "finite numbers, not all zero (wrong --input_scale?)"
            )


def check_headers(images: Sequence[bytes], name: str) -> None:
    """Look at the structure and the size of encoded images, without decoding them.

    Raises UserError for the first that does not fit, as checked_pixels names it.
    """
    for index, image in enumerate(images):
        where = f"{name}: image {index}"
        _, height, width = inspect(image, where)
        _check_shape((height, width, 3), where)


def checked_pixels(image: bytes | np.ndarray, name: str) -> np.ndarray:
    """Return an encoded or decoded image as uint8 RGB [112, 112, 3]; UserError by `name` if not."""
    pixels = image_files.decode(image, name) if isinstance(image, bytes) else image
    _check_shape(pixels.shape, name, pixels.dtype)
    return pixels


def _check_shape(shape: tuple[int, ...], name: str, dtype: np.dtype = _BYTES) -> None:
    """Raise UserError, by `name`, where an image is not uint8 RGB [112, 112, 3]."""
    if shape != (IMAGE_SIZE, IMAGE_SIZE, 3) or dtype != _BYTES:
        size = "x".join(map(str, shape))
        raise UserError(
            f"{name} is {size} {dtype}, expected {IMAGE_SIZE}x{IMAGE_SIZE}x3 uint8: "
            "align the faces first (python -m uniface_jax.align)"
        )
