"""Measures of single images: sharpness, contrast, and what a face detector finds.

They are kept as features are: a network of a few numbers, so to speak, whose extraction resumes.
"""

import hashlib
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np

from uniface_jax.data.faces.alignment import Face, FaceDetector, packaged_detector
from uniface_jax.files.reading import read_regular
from uniface_jax.inference.model import Model

SHARPNESS, CONTRAST, FACE, TURN = range(1, 5)  # columns; column 0 is 1: no row is zero
WIDTH = 5
LEAST_SCORE = 0.1  # of a face that the detector is asked for
NO_DETECTOR = -1.0  # in the column FACE
BLANK_CONTRAST = 2.0  # gray levels


def sharpness(image: np.ndarray) -> float:
    """Return the variance of the Laplacian of an image's gray levels; image: uint8 RGB.

    >>> sharpness(np.full((112, 112, 3), 90, np.uint8))
    0.0
    """
    gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    return float(cv2.Laplacian(gray, cv2.CV_64F).var())


def turn(landmarks: np.ndarray) -> float:
    """Return how far a face is turned to a side, from its landmarks [5, 2] of any unit.

    It is the distance of the nose from the middle of the eyes along their line, in parts of the
    eyes' distance: 0 from the front, about 0.25 at 30 degrees, 0.5 where the nose covers an eye.

    >>> turn(np.array([[0.0, 0], [2, 0], [1.5, 1], [0, 2], [2, 2]]))
    0.25
    """
    points = np.asarray(landmarks, np.float64)
    line = points[1] - points[0]
    length = float(np.hypot(*line))
    if length == 0:
        return 1.0
    return min(1.0, abs(float((points[2] - points[:2].mean(0)) @ line)) / length**2)


def measuring_model(detector: Path | None) -> Model:
    """Return the model whose features are an image's measures, float32 [B, WIDTH].

    detector: YuNet as an ONNX file; None measures no face. Raises UserError as FaceDetector.
    """
    digest = hashlib.sha256(b"uniface_jax.clean measures 1")
    if detector is not None:
        digest.update(read_regular(detector))
        FaceDetector(detector, LEAST_SCORE)  # which refuses what is none, before any work
    own = threading.local()

    def faces_of(image: np.ndarray) -> list[Face]:
        if not hasattr(own, "detector"):
            own.detector = FaceDetector(detector, LEAST_SCORE)
        found: list[Face] = own.detector.detect(image)
        return found

    def embed(images: np.ndarray) -> np.ndarray:
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            rows = pool.map(lambda x: _measure(x, faces_of if detector else None), images)
            return np.array(list(rows), np.float32)

    description = "sharpness and contrast" + (", faces by YuNet" if detector else "")
    return Model(embed, "measures", digest.hexdigest(), description)


def _measure(image: np.ndarray, faces_of: Callable[[np.ndarray], list[Face]] | None) -> list[float]:
    contrast = float(image.std())
    row = [1.0, sharpness(image), contrast, NO_DETECTOR, 0.0]
    if faces_of is not None:
        faces = faces_of(image) if contrast >= BLANK_CONTRAST else []
        best = max(faces, key=lambda face: face.score, default=None)
        row[FACE] = best.score if best else 0.0
        row[TURN] = turn(best.landmarks) if best else 0.0
    return row


def find_detector(value: str) -> Path | None:
    """Return the detector's file: "auto" is the packaged one where there is one, "none" none."""
    if value == "none":
        return None
    if value != "auto":
        return Path(value)
    return packaged_detector()
