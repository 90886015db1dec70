"""Contact sheet of a search: a row a query, its photograph and those that it was found in."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np

from uniface_jax.data.formats import images
from uniface_jax.data.formats.image_size import IMAGE_SIZE
from uniface_jax.data.sources.base import Source
from uniface_jax.data.sources.folders import read_image_file
from uniface_jax.data.sources.photographs import open_images
from uniface_jax.errors import UserError
from uniface_jax.gallery.rows import Row

_GAP, _TEXT = 6, 34  # pixels between cells, and below a face for two lines
_MARGIN = 0.25  # of a box, around it
_ACCEPTED, _REFUSED, _PLAIN = (40, 150, 60), (200, 60, 50), (120, 120, 120)  # RGB
_GRAY = 225


@dataclass(frozen=True)
class Match:
    """A row that was found, its cosine, and whether it reaches the threshold, None without one."""

    row: Row
    cosine: float
    accepted: bool | None


def contact_sheet(queries: Sequence[str], matches: Sequence[Sequence[Match]]) -> np.ndarray:
    """Return uint8 RGB [H, W, 3]: queries, one or more, on the left, what was found beside them.

    queries: paths of photographs, or names. A photograph that is not where it was is a gray cell.
    """
    columns = 1 + max(map(len, matches))
    rows = []
    for query, found in zip(queries, matches, strict=True):
        cells = [_cell(_photograph(query), (Path(query).name, "asked about"), _PLAIN)]
        for match in found:
            color = {None: _PLAIN, True: _ACCEPTED, False: _REFUSED}[match.accepted]
            texts = (match.row.person or match.row.name, f"{match.cosine:.3f}  #{match.row.id}")
            cells.append(_cell(face_of(match.row), texts, color))
        blank = np.full_like(cells[0], 255)
        rows.append(np.concatenate(cells + [blank] * (columns - len(cells)), axis=1))
    return np.concatenate(rows)


def _cell(face: np.ndarray | None, texts: tuple[str, str], color: tuple[int, ...]) -> np.ndarray:
    cell = np.full((IMAGE_SIZE + _TEXT + _GAP, IMAGE_SIZE + 2 * _GAP, 3), 255, np.uint8)
    if face is None:
        face = np.full((IMAGE_SIZE, IMAGE_SIZE, 3), _GRAY, np.uint8)
    cell[_GAP : _GAP + IMAGE_SIZE, _GAP : _GAP + IMAGE_SIZE] = face
    corners = (_GAP - 2, _GAP - 2), (_GAP + IMAGE_SIZE + 1, _GAP + IMAGE_SIZE + 1)
    cv2.rectangle(cell, *corners, color, 2)
    for line, text in enumerate(texts):
        readable = text.encode("ascii", "replace").decode()[:18]  # all that OpenCV's font has
        place = (_GAP, IMAGE_SIZE + _GAP + 14 * (line + 1))
        cv2.putText(cell, readable, place, cv2.FONT_HERSHEY_SIMPLEX, 0.36, color, 1, cv2.LINE_AA)
    return cell


def _photograph(path: str) -> np.ndarray | None:
    try:
        return _fitted(images.decode(read_image_file(Path(path)), path))
    except UserError:
        return None


def face_of(row: Row) -> np.ndarray | None:
    """Return the face of a row out of its photograph, uint8 RGB, a square of IMAGE_SIZE.

    None where the photograph is not there any more. For one thread at a time.
    """
    source = _opened(row.source) if row.source else None
    if source is None or not 0 <= row.photograph < len(source):
        return None
    try:
        item = source[row.photograph]
        if item.name != row.name:
            return None
        pixels = images.decode(item.image, item.name)
    except UserError:
        return None
    if row.box is not None:
        x, y, width, height = row.box
        around = _MARGIN * max(width, height)
        top, bottom = max(0, int(y - around)), int(y + height + around)
        left, right = max(0, int(x - around)), int(x + width + around)
        cut = pixels[top : max(bottom, 0), left : max(right, 0)]
        pixels = cut if cut.size else pixels
    return _fitted(pixels)


@lru_cache(maxsize=8)
def _opened(source: str) -> Source | None:
    try:
        return open_images(source)
    except UserError:
        return None


def _fitted(pixels: np.ndarray) -> np.ndarray:
    """Return an image in a square of IMAGE_SIZE, its sides in proportion, gray around it."""
    scale = IMAGE_SIZE / max(pixels.shape[:2])
    size = [max(1, min(IMAGE_SIZE, round(side * scale))) for side in pixels.shape[:2]]
    square = np.full((IMAGE_SIZE, IMAGE_SIZE, 3), _GRAY, np.uint8)
    top, left = ((IMAGE_SIZE - side) // 2 for side in size)
    small = cv2.resize(pixels, (size[1], size[0]), interpolation=cv2.INTER_AREA)
    square[top : top + size[0], left : left + size[1]] = small
    return square
