"""Five landmarks of a face: the eyes, the nose and the corners of the mouth.

They are stored in the coordinates of the aligned face: x to the right and y down, 0..1 over its
sides, so that the center of pixel k of S lies at (k + 1/2) / S. Their order is that of the
template: left eye, right eye, nose, left and right corner of the mouth, left in the image.
"""

from typing import Any

import numpy as np

from uniface_jax.data.formats.image_size import IMAGE_SIZE
from uniface_jax.errors import UserError

POINTS = 5
LOWEST, HIGHEST = -1.0, 2.0  # coordinates: a point may lie outside of the crop, not far
_MIRRORED_ORDER = [1, 0, 2, 4, 3]

# x, y in pixels of the aligned face, IMAGE_SIZE x IMAGE_SIZE.
TEMPLATE = np.array(
    [
        [38.2946, 51.6963],
        [73.5318, 51.5014],
        [56.0252, 71.7366],
        [41.5493, 92.3655],
        [70.7299, 92.2041],
    ]
)


def from_pixels(points: np.ndarray) -> np.ndarray:
    """Return points [..., 2] in an aligned face's pixels as coordinates 0..1, float32.

    >>> from_pixels(np.array([0.0, 111.0])) * 112
    array([  0.5, 111.5], dtype=float32)
    """
    return ((points + 0.5) / IMAGE_SIZE).astype(np.float32)


def mirrored(landmarks: Any) -> Any:
    """Return the landmarks [..., 5, 2] of the mirrored face, an array of numpy or of JAX.

    Left and right exchange their names too: what was the left eye is the right one now.

    >>> mirrored(from_pixels(TEMPLATE))[0].round(3)
    array([0.339, 0.464], dtype=float32)
    """
    swapped = landmarks[..., _MIRRORED_ORDER, :]
    sign, added = (
        np.array(x, swapped.dtype).reshape(*[1] * (swapped.ndim - 1), 2) for x in ([-1, 1], [1, 0])
    )
    return swapped * sign + added


def checked(values: Any, where: str) -> np.ndarray:
    """Return ten numbers, or five pairs, as landmarks float32 [5, 2].

    Raises UserError, which begins with `where`, for others, and for coordinates far outside.
    """
    try:
        points = np.array(values, np.float64).reshape(POINTS, 2)
    except (TypeError, ValueError) as e:
        raise UserError(f"{where}: no landmarks; expected the x and y of five points") from e
    if not ((points >= LOWEST) & (points <= HIGHEST)).all():  # not for nan either
        found = points[~((points >= LOWEST) & (points <= HIGHEST))][0]
        raise UserError(
            f"{where}: a landmark at {found:g}; expected 0..1, shares of the aligned face's side "
            f"(pixels: (x + 0.5) / {IMAGE_SIZE})"
        )
    return points.astype(np.float32)
