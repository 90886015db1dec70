"""Rows of features with what is known of each: name, person, place of the face, norm."""

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class FeatureRows:
    """K faces and their features.

    Attributes:
        names: of the photographs, as their source has them.
        photographs: their numbers in the source, int64 [K].
        people: who it is by the source, None where it does not say.
        faces: number of the face in its photograph, 0 the most prominent, int32 [K].
        boxes: x, y, width and height in pixels of the upright photograph, float32 [K, 4]; nan where
            no face was looked for.
        scores: the detector's, 0..1, float32 [K]; nan as in boxes.
        features: float32 [K, D], not normalized.
        qualities: by the model's quality head, float32 [K]; None where it has none.
    """

    names: Sequence[str]
    photographs: np.ndarray
    people: Sequence[str | None]
    faces: np.ndarray
    boxes: np.ndarray
    scores: np.ndarray
    features: np.ndarray
    qualities: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.features)

    @property
    def norms(self) -> np.ndarray:
        """Return the lengths of the features, float32 [K]."""
        lengths: np.ndarray = np.linalg.norm(self.features.astype(np.float64), axis=1)
        return lengths.astype(np.float32)

    def take(self, rows: np.ndarray) -> "FeatureRows":
        """Return the rows at these places, int64 [M]."""
        return FeatureRows(
            [self.names[i] for i in rows.tolist()],
            self.photographs[rows],
            [self.people[i] for i in rows.tolist()],
            self.faces[rows],
            self.boxes[rows],
            self.scores[rows],
            self.features[rows],
            None if self.qualities is None else self.qualities[rows],
        )


def to_bytes(rows: FeatureRows, left_out: Sequence[tuple[str, str]]) -> bytes:
    """Return rows, and (name, reason) of photographs without any, as an uncompressed .npz.

    Names may hold what os.fsdecode makes of bytes that are no UTF-8.
    """
    texts = json.dumps([list(rows.names), list(rows.people), list(left_out)]).encode("ascii")
    written = io.BytesIO()
    qualities: dict[str, Any] = {} if rows.qualities is None else {"qualities": rows.qualities}
    np.savez(
        written,
        texts=np.frombuffer(texts, np.uint8),
        photographs=rows.photographs,
        faces=rows.faces,
        boxes=rows.boxes,
        scores=rows.scores,
        features=rows.features,
        **qualities,
    )
    return written.getvalue()


def from_bytes(content: bytes) -> tuple[FeatureRows, list[tuple[str, str]]]:
    """Return what to_bytes was given; for bytes that are known to be its own.

    Example:
        >>> none = np.zeros(0, np.int64)
        >>> rows = FeatureRows([], none, [], none, none, none, np.zeros((0, 4), np.float32))
        >>> from_bytes(to_bytes(rows, [("a.png", "no face found")]))[1]
        [('a.png', 'no face found')]
    """
    with np.load(io.BytesIO(content), allow_pickle=False) as file:
        names, people, left_out = json.loads(file["texts"].tobytes())
        arrays = {name: file[name] for name in file.files if name != "texts"}
    rows = FeatureRows(names=names, people=people, **arrays)
    return rows, [(name, reason) for name, reason in left_out]
