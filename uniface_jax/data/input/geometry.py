"""Where augmentations move pixels, and landmarks with them.

The functions of random numbers here decide for augment.py which pixels are taken. Landmarks are
float32 [5, 2], x and y, 0..1 over the image (formats.landmarks); size is its height and width.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

Size = tuple[int, int]


class Window(NamedTuple):
    """A rectangle of an image, pixels."""

    top: int
    left: int
    rows: int
    columns: int


def crop_window(size: Size, uniform: Sequence[float], crop: float) -> Window:
    """Return a window of 1 - crop .. 1 of the side, anywhere. uniform: [3]."""
    height, width = size
    share = 1.0 - crop * uniform[0]
    rows, columns = max(1, round(height * share)), max(1, round(width * share))
    top = int(uniform[1] * (height - rows + 1))
    left = int(uniform[2] * (width - columns + 1))
    return Window(top, left, rows, columns)


def affine_matrix(
    size: Size, uniform: Sequence[float], rotate: float, translate: float, scale: float
) -> np.ndarray:
    """Return where the pixels of a turned, scaled and shifted image come from: float64 [2, 3].

    About the center, in ± so many degrees, of the size, and pixels. uniform: [4].
    """
    turn, zoomed, right, down = (2.0 * u - 1.0 for u in uniform)
    angle, zoom = math.radians(rotate) * turn, 1.0 + zoomed * scale
    height, width = size
    center_x, center_y = (width - 1) / 2, (height - 1) / 2
    # Where an output pixel comes from: the inverse of turn, zoom, then shift.
    cosine, sine = math.cos(angle) / zoom, math.sin(angle) / zoom
    x, y = -center_x - right * translate, -center_y - down * translate
    return np.array(
        [
            [cosine, sine, center_x + cosine * x + sine * y],
            [-sine, cosine, center_y - sine * x + cosine * y],
        ]
    )


def landmarks_in_crop(
    landmarks: np.ndarray, uniform: Sequence[float], size: Size, *, crop: float
) -> np.ndarray:
    """Return the landmarks in the enlarged window."""
    window = crop_window(size, uniform, crop)
    sides = np.array([size[1], size[0]], np.float32)
    corner = np.array([window.left, window.top], np.float32)
    moved: np.ndarray = (landmarks * sides - corner) / np.array(
        [window.columns, window.rows], np.float32
    )
    return moved


def landmarks_by_affine(
    landmarks: np.ndarray,
    uniform: Sequence[float],
    size: Size,
    *,
    rotate: float,
    translate: float,
    scale: float,
) -> np.ndarray:
    """Return where the landmarks are in the turned, scaled and shifted image."""
    matrix = affine_matrix(size, uniform, rotate, translate, scale)
    sides = np.array([size[1], size[0]])
    pixels = landmarks * sides - 0.5
    moved = np.linalg.solve(matrix[:, :2], (pixels - matrix[:, 2]).T).T
    shares: np.ndarray = ((moved + 0.5) / sides).astype(np.float32)
    return shares
