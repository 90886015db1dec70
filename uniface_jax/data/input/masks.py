"""Face masks drawn onto aligned faces: a polygon from the nose to the chin, with straps.

The faces are taken to be aligned to ArcFace's template (formats.landmarks), by which the mask goes.
Nothing above the bridge of the nose changes. Shape, color and texture are of random numbers.
"""

import math
from collections.abc import Sequence

import cv2
import numpy as np

from uniface_jax.data.formats.image_size import IMAGE_SIZE
from uniface_jax.data.formats.landmarks import TEMPLATE

MASK_NUMBERS = 11
_EYES, _NOSE, _MOUTH = TEMPLATE[:2, 1].mean(), TEMPLATE[2], TEMPLATE[3:, 1].mean()
BRIDGE = (2 * _EYES + _NOSE[1]) / 3 / IMAGE_SIZE  # of the height: a third of the way from the eyes
_SHIFT = 4  # bits of a pixel's fraction in OpenCV's coordinates


def draw_mask(image: np.ndarray, uniform: Sequence[float]) -> np.ndarray:
    """Draw a mask over nose, mouth and chin of an aligned face.

    uniform: [MASK_NUMBERS]: four of the shape, one of the straps, three of the color, three of the
    texture.

    Example:
        >>> face = np.full((112, 112, 3), 200, np.uint8)
        >>> masked = draw_mask(face, [0.5] * MASK_NUMBERS)
        >>> rows = np.flatnonzero((masked != face).any((1, 2)))
        >>> bool(rows[0] >= BRIDGE * 112), int(rows[-1])
        (True, 111)
    """
    height, width = image.shape[:2]
    cover = np.zeros((height, width), np.uint8)
    outline = _outline(uniform[:4])
    scale = np.array([width, height]) / IMAGE_SIZE
    points = np.rint(outline * scale * 2**_SHIFT).astype(np.int32)
    cv2.fillPoly(cover, [points], 255, cv2.LINE_AA, _SHIFT)
    for side, ear in ((0, -1.0), (4, IMAGE_SIZE)):  # the upper corners
        end = np.rint(np.array([ear, _EYES + 8 + 10 * uniform[4]]) * scale * 2**_SHIFT)
        cv2.line(
            cover, points[side].tolist(), end.astype(int).tolist(), 200, 1, cv2.LINE_AA, _SHIFT
        )  # fmt: skip
    cover[: math.ceil(BRIDGE * height)] = 0
    share = (cover / np.float32(255))[..., None]
    cloth = _cloth((height, width), uniform[5:8], uniform[8:])
    masked: np.ndarray = np.rint(image + share * (cloth - image)).astype(np.uint8)
    return masked


def _outline(uniform: Sequence[float]) -> np.ndarray:
    """Return the mask's corners, x and y in pixels of 112, from the left ear around: [10, 2]."""
    high, wide, low, peak = uniform
    top = BRIDGE * IMAGE_SIZE + (_NOSE[1] - BRIDGE * IMAGE_SIZE) * 0.8 * high
    side = top + 3 + 5 * peak  # of the upper corners: the nose's peak stands out above them
    half, chin = 36 + 8 * wide, _MOUTH + 14 + 8 * low
    x = _NOSE[0]
    right = np.array(
        [
            [0.0, top],
            [half * 0.45, top + (side - top) * (0.3 + 0.5 * peak)],
            [half, side],
            [half * 0.95, _MOUTH],
            [half * 0.5, chin - 3],
            [0.0, chin],
        ]
    )
    left = right[:0:-1] * [-1, 1]  # from the chin's middle upward
    around = np.concatenate([left[3:], right, left[1:3]])  # from the upper left corner
    corners: np.ndarray = around + np.array([x, 0.0])
    return corners


def _cloth(size: tuple[int, int], color: Sequence[float], texture: Sequence[float]) -> np.ndarray:
    """Return the cloth over the whole image, float32 [H, W, 3]: pleats, checks or plain; shaded."""
    rows, columns = (np.linspace(0, 1, count, dtype=np.float32) for count in size)
    kind, period, strength = texture
    waves = 12 + 28 * period
    pleats = np.sin(2 * np.pi * waves * rows)[:, None]
    checks = np.sign(pleats) * np.sign(np.sin(2 * np.pi * waves * columns))
    pattern = pleats if kind < 0.4 else checks if kind < 0.7 else np.float32(0)
    round_cheeks = 1 - 1.2 * (columns - 0.5) ** 2  # darker toward the ears
    shade = round_cheeks * (1 + 0.25 * strength * pattern) * np.ones((size[0], 1), np.float32)
    cloth = shade[..., None] * (20 + 225 * np.array(color, np.float32))
    clipped: np.ndarray = np.clip(cloth, 0, 255)
    return clipped
