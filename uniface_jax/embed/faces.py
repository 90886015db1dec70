"""Faces of a source's photographs: found and aligned, or the images as they are."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from uniface_jax.data.faces.alignment import FaceDetector, align, aligned_landmarks
from uniface_jax.data.formats import images
from uniface_jax.data.sources.base import Source
from uniface_jax.errors import UserError
from uniface_jax.inference.extract import checked_pixels

NO_FACE = "no face found"


@dataclass(frozen=True)
class Preparation:
    """Way from a photograph to the faces that a network takes.

    align: search for faces and move them to the template; without it an image is a face, 112x112.
    several: take all faces, and not the most prominent alone. detector: YuNet's file, None for the
    packaged one; score: the least of a face. landmarks: the network takes those of each face.
    skip: leave out a photograph that cannot be read, where that is an error otherwise.
    """

    align: bool = False
    several: bool = False
    detector: str | None = None
    score: float = 0.6
    landmarks: bool = False
    skip: bool = False


class FoundFace(NamedTuple):
    """One face: what the network takes, (uint8 RGB [112, 112, 3],) or that and landmarks [5, 2].

    box: float32 [4], and score; nan where no face was looked for.
    """

    inputs: tuple[np.ndarray, ...]
    box: np.ndarray
    score: float


class Found(NamedTuple):
    """Faces of one photograph, the most prominent first; problem: why there is none, or ""."""

    name: str
    person: str | None
    faces: Sequence[FoundFace]
    problem: str = ""


class FaceFinder:
    """Function from the number of a photograph to its faces, for use by several threads.

    Raises:
        UserError: there is no detector; or, when it is called, a photograph cannot be read, or is
            not 112x112 without alignment, unless those are skipped.
    """

    def __init__(self, source: Source, how: Preparation) -> None:
        self._source, self._how = source, how
        self._own = threading.local()  # a detector is for one thread
        if how.align:
            self._detector()

    def __call__(self, index: int) -> Found:
        """Return the faces of photograph `index`."""
        name, person = "", None
        try:
            item = self._source[index]
            name, person = item.name, self._person(item.label)
            faces = self._faces(item.image, index, f"{self._source.name}: {name}")
        except UserError as e:
            if not self._how.skip:
                raise
            return Found(name or f"photograph {index}", person, (), str(e))
        return Found(name, person, faces, "" if faces else NO_FACE)

    def _person(self, label: int) -> str | None:
        names = self._source.class_names
        if names is not None:
            return names[label]
        return str(label) if self._source.num_classes > 1 else None

    def _faces(self, encoded: bytes, index: int, name: str) -> list[FoundFace]:
        how = self._how
        if not how.align:
            pixels = checked_pixels(encoded, name)
            given = [self._source.landmarks(np.array([index]))[0]] if how.landmarks else []
            return [FoundFace((pixels, *given), np.full(4, np.nan, np.float32), np.nan)]
        pixels = images.decode(encoded, name)
        found = self._detector().detect(pixels)
        return [
            FoundFace(
                (
                    align(pixels, face.landmarks),
                    *([aligned_landmarks(face.landmarks)] if how.landmarks else []),
                ),
                face.box.astype(np.float32),
                face.score,
            )
            for face in found[: None if how.several else 1]
        ]

    def _detector(self) -> FaceDetector:
        if not hasattr(self._own, "detector"):
            self._own.detector = FaceDetector(self._how.detector, self._how.score)
        detector: FaceDetector = self._own.detector
        return detector
