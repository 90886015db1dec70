"""From the bytes that somebody sent to the faces that a network takes."""

import threading
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from uniface_jax.data.faces.alignment import FaceDetector, align, aligned_landmarks
from uniface_jax.data.formats import images
from uniface_jax.data.formats.image_size import IMAGE_SIZE
from uniface_jax.data.formats.landmarks import TEMPLATE, from_pixels
from uniface_jax.errors import UserError
from uniface_jax.serve.problems import Problem

# By which files of images.FORMATS begin: of anything else the type is wrong, not the content.
_BEGINNINGS = (b"\xff\xd8", b"\x89PNG", b"BM", *(b"P%d" % kind for kind in range(1, 7)))
MAX_SIDE = 1 << 14  # pixels: OpenCV does not warp images of twice as many


class ReadFace(NamedTuple):
    """A face of a photograph.

    crop: uint8 RGB [112, 112, 3], as the network sees it. landmarks: float32 [5, 2], 0..1 over its
    sides. box: x, y, width, height in the photograph's pixels, float [4], and score, 0..1: None
    where no face was looked for.
    """

    crop: np.ndarray
    landmarks: np.ndarray
    box: np.ndarray | None
    score: float | None


class FaceReader:
    """Function from an encoded photograph to its faces, for use by several threads.

    Args:
        align: search for faces and move them to the template; False takes images of 112x112 that
            are aligned already.
        detector: YuNet's file; None is the packaged one.
        score: the least of a face, 0..1.
        pixels: how many a photograph may have.
        faces: how many are taken of one photograph, the most prominent first.

    Raises:
        UserError: there is no detector.
    """

    def __init__(
        self, *, align: bool, detector: str | None, score: float, pixels: int, faces: int
    ) -> None:
        self.align = align
        self._given = (detector, score)
        self._pixels, self._faces = pixels, faces
        self._own = threading.local()  # a detector is for one thread
        if align:
            self._detector()

    def __call__(self, encoded: bytes, name: str, *, several: bool) -> Sequence[ReadFace]:
        """Return the most prominent face, or `several`; at least one.

        name: what problems call the photograph. Raises Problem for what is no photograph, damaged,
        too large, or without a face.
        """
        self._check(encoded, name)
        try:
            pixels = images.decode(encoded, name)
        except UserError as e:
            raise Problem(422, "damaged_image", str(e)) from e
        if not self.align:
            return [_aligned(pixels, name)]
        found = self._detector().detect(pixels)[: self._faces if several else 1]
        if not found:
            raise Problem(422, "no_face", f"{name}: no face found")
        return [
            ReadFace(
                align(pixels, face.landmarks),
                aligned_landmarks(face.landmarks),
                face.box,
                face.score,
            )
            for face in found
        ]

    def _check(self, encoded: bytes, name: str) -> None:
        """Look at type and size before a pixel is decoded."""
        webp = encoded[:4] == b"RIFF" and encoded[8:12] == b"WEBP"
        if not webp and not encoded.startswith(_BEGINNINGS):
            raise Problem(
                415, "no_image", f"{name}: no image; JPEG, PNG, PGM, BMP and WebP are taken"
            )
        try:
            _, height, width = images.header(encoded, name)
        except images.TooManyPixelsError as e:
            raise Problem(413, "too_many_pixels", str(e)) from e
        except UserError as e:
            raise Problem(422, "damaged_image", str(e)) from e
        if height * width > self._pixels or max(height, width) > MAX_SIDE:
            raise Problem(
                413,
                "too_many_pixels",
                f"{name}: {width}x{height} pixels; at most {self._pixels} are taken, "
                f"and {MAX_SIDE} a side",
            )

    def _detector(self) -> FaceDetector:
        if not hasattr(self._own, "detector"):
            self._own.detector = FaceDetector(*self._given)
        detector: FaceDetector = self._own.detector
        return detector


def _aligned(pixels: np.ndarray, name: str) -> ReadFace:
    if pixels.shape[:2] != (IMAGE_SIZE, IMAGE_SIZE):
        raise Problem(
            422,
            "not_aligned",
            f"{name}: {pixels.shape[1]}x{pixels.shape[0]} pixels; this server takes aligned faces "
            f"of {IMAGE_SIZE}x{IMAGE_SIZE}",
        )
    return ReadFace(pixels, from_pixels(TEMPLATE), None, None)
