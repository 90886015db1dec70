"""Rows on their way into a gallery, and what is known of those that are in it."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from uniface_jax.errors import UserError
from uniface_jax.gallery.manifest import Manifest
from uniface_jax.gallery.segment import Segment
from uniface_jax.inference.feature_rows import FeatureRows

BLOCK = 1 << 14  # rows
Blocks = Iterable[FeatureRows]


@dataclass(frozen=True)
class Row:
    """One row of a gallery; person is None where it is not known, box where nothing was found."""

    id: int
    name: str
    person: str | None
    photograph: int
    face: int
    box: tuple[float, ...] | None
    source: str


def plain_rows(
    features: np.ndarray, names: Sequence[str], people: Sequence[str | None] | None = None
) -> FeatureRows:
    """Return rows of which nothing else is known; UserError for another number of names."""
    features = np.asarray(features, np.float32)
    count = len(features)
    people = [None] * count if people is None else people
    if features.ndim != 2 or len(names) != count or len(people) != count:
        raise UserError(
            f"features {list(features.shape)}, {len(names)} names, {len(people)} people: expected "
            "[N, D], N and N"
        )
    nothing = np.full((count, 4), np.nan, np.float32)
    numbers, first = np.arange(count), np.zeros(count, np.int32)
    return FeatureRows(names, numbers, people, first, nothing, nothing[:, 0], features)


def expect_directions(features: np.ndarray, name: Callable[[int], str]) -> None:
    """Raise UserError for the first of features [K, D] that is zero or not finite."""
    with np.errstate(all="ignore"):
        lengths = np.linalg.norm(features.astype(np.float64), axis=1)
    # Of much smaller or larger ones the squares are no normal numbers.
    usable = (lengths > 1e-100) & (lengths < 1e100)
    if not usable.all():
        number = int(np.argmin(usable))
        raise UserError(
            f"{name(number)}: a feature of length {lengths[number]}; it has no direction"
        )


def split(rows: FeatureRows) -> Iterator[FeatureRows]:
    """Yield the rows in blocks."""
    for start in range(0, len(rows), BLOCK):
        yield rows.take(np.arange(start, min(start + BLOCK, len(rows))))


def numbered(
    blocks: Blocks, count: int, manifest: Manifest
) -> Iterator[tuple[FeatureRows, np.ndarray]]:
    """Yield blocks with their ids, checked."""
    done = 0
    for rows in blocks:
        if rows.features.shape[1] != manifest.width:
            raise UserError(
                f"features of {rows.features.shape[1]} numbers; expected {manifest.width}, as in "
                "the gallery"
            )
        if done + len(rows) > count:
            raise UserError(f"more than {count} rows; expected as many")
        names = rows.names
        expect_directions(rows.features, names.__getitem__)
        first = manifest.next_id + done
        yield rows, np.arange(first, first + len(rows))
        done += len(rows)
    if done != count:
        raise UserError(f"{done} rows; expected {count}")


def alive(segment: Segment) -> np.ndarray:
    """Return the places of rows that count."""
    return np.nonzero(~np.isnan(segment.codes.errors[: segment.entry.rows]))[0]


def row_of(segment: Segment, place: int) -> Row:
    """Return what is known of the row at a place."""
    labels = segment.labels
    box = labels.boxes[place]
    return Row(
        int(segment.ids[place]),
        labels.names[place],
        labels.people[place] or None,
        int(labels.photographs[place]),
        int(labels.faces[place]),
        None if np.isnan(box).any() else tuple(box.tolist()),
        segment.entry.source,
    )


def feature_rows(segment: Segment, places: np.ndarray) -> FeatureRows:
    """Return the rows at places, int64 [K], with their features."""
    labels = segment.labels
    return FeatureRows(
        [labels.names[i] for i in places.tolist()],
        labels.photographs[places],
        [labels.people[i] or None for i in places.tolist()],
        labels.faces[places],
        labels.boxes[places],
        np.full(len(places), np.nan, np.float32),
        segment.rows(places),
    )
