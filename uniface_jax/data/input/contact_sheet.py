"""A picture of what a network is about to be trained on: rows of identities, and augmented."""

from collections.abc import Sequence

import cv2
import numpy as np

from uniface_jax.data.formats import images
from uniface_jax.data.formats.image_size import IMAGE_SIZE
from uniface_jax.data.input.augment import Augment, augment, augmentations
from uniface_jax.data.input.shuffle import uniforms
from uniface_jax.data.sources.base import Source
from uniface_jax.errors import UserError

GAP_PIXELS, TITLE_PIXELS = 4, 22  # pixels between images, and above a row for its name
_SEARCHED_RECORDS = 20_000  # records among which the images of a class are looked for


def chosen_records(
    source: Source, identities: int, columns: int, seed: int
) -> dict[int, list[int]]:
    """Return {label: its records} for `identities` classes at most, `columns` records each at most.

    Items are read in an order by `seed` until enough classes are full, 20,000 of them at most; so
    in sets of millions of images a class may show fewer than it has. Classes with more come first.
    """
    found: dict[int, list[int]] = {}
    order = np.random.RandomState(seed).permutation(min(len(source), _SEARCHED_RECORDS))
    # A converted set is shuffled, other sources are sorted by class: neighbors see both.
    stride = max(1, len(source) // _SEARCHED_RECORDS) if len(source) > _SEARCHED_RECORDS else 1
    full = 0
    for index in order.tolist():
        record = index * stride
        mine = found.setdefault(source[record].label, [])
        if len(mine) < columns:
            mine.append(record)
            full += len(mine) == columns
        if full >= identities:
            break
    best = sorted(found, key=lambda label: (-len(found[label]), label))[:identities]
    return {label: found[label] for label in sorted(best)}


def face_rows(
    source: Source, rows: Sequence[tuple[str, Sequence[int]]], columns: int
) -> np.ndarray:
    """Return uint8 RGB [H, W, 3]: of each row its title and the images of its records.

    Of a row with more than `columns` records the first are shown; a damaged image is black.
    """
    drawn = []
    for title, records in rows:
        drawn += [_title(title, columns), _row(_readable(source, records[:columns]), columns)]
    return np.concatenate(drawn)


def _readable(source: Source, records: Sequence[int]) -> list[np.ndarray]:
    faces = []
    for record in records:
        try:
            faces.append(_face(source, record))
        except UserError:
            faces.append(np.zeros((IMAGE_SIZE, IMAGE_SIZE, 3), np.uint8))
    return faces


def contact_sheet(
    source: Source, config: Augment, identities: int, columns: int, seed: int
) -> np.ndarray:
    """Return uint8 RGB [H, W, 3]: for each identity a row of images and a row of them augmented.

    Images of other sizes are scaled to 112x112. Raises UserError where an item is no image.
    """
    functions = augmentations(config)
    count = sum(function.numbers for function in functions)
    rows = []
    for label, records in chosen_records(source, identities, columns, seed).items():
        faces = [_face(source, record) for record in records]
        numbers = uniforms(np.array(records, np.int64), count, seed).tolist()
        changed = [augment(f, functions, n) for f, n in zip(faces, numbers, strict=True)]
        name = source.class_names[label] if source.class_names else ""
        rows += [_title(f"{label}  {name}", columns), _row(faces, columns), _row(changed, columns)]
    return np.concatenate(rows)


def _face(source: Source, record: int) -> np.ndarray:
    """Return the pixels of a record, uint8 RGB [112, 112, 3]."""
    item = source[record]
    face = images.decode(item.image, f"{source.name}: record {record} ({item.name})")
    size = (IMAGE_SIZE, IMAGE_SIZE)
    return face if face.shape[:2] == size else cv2.resize(face, size)


def _row(faces: list[np.ndarray], columns: int) -> np.ndarray:
    """Return a row of faces, white where there are fewer than `columns`."""
    cell = IMAGE_SIZE + GAP_PIXELS
    row = np.full((cell, columns * cell, 3), 255, np.uint8)
    for place, face in enumerate(faces):
        row[:IMAGE_SIZE, place * cell : place * cell + IMAGE_SIZE] = face
    return row


def _title(text: str, columns: int) -> np.ndarray:
    """Return the line of text above an identity's rows."""
    row = np.full((TITLE_PIXELS, columns * (IMAGE_SIZE + GAP_PIXELS), 3), 255, np.uint8)
    readable = text.encode("ascii", "replace").decode()  # all that OpenCV's font has
    cv2.putText(row, readable, (2, 16), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (0, 0, 0), 1, cv2.LINE_AA)
    return row
