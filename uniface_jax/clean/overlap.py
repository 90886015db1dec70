"""The search of --against: who of a training set is in which test set, as tables and as a list."""

import csv
import io
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from uniface_jax import cli
from uniface_jax.clean.against import (
    ForeignSet,
    Shared,
    alike_people,
    hashes_of,
    same_images,
    shared_people,
)
from uniface_jax.clean.people import People
from uniface_jax.clean.pipeline import Set
from uniface_jax.clean.scale import Scale
from uniface_jax.clean.table import cell, person_name
from uniface_jax.data.formats.overlap_list import (
    Overlap,
    hashes_digest,
    overlap_file,
    write_overlaps,
)
from uniface_jax.evaluate.features import FeatureSource
from uniface_jax.files.atomic import write_bytes

CSV_FILE, JSON_FILE = "overlap.csv", "overlap.json"
_COLUMNS = (
    "set", "person", "label", "by", "score", "test_images", "test_image", "test_name", "test_person"
)  # fmt: skip


def find_overlaps(
    data: Set,
    people: tuple[Scale, People],
    source: FeatureSource,
    tests: Sequence[ForeignSet],
    sure: float,
) -> tuple[list[dict[str, Any]], list[Overlap]]:
    """Return a row for each person who is in a test set, by _COLUMNS, and the sets' overlaps."""
    rows: list[dict[str, Any]] = []
    overlaps = []
    scale, groups = people
    names = data.images.source.class_names
    for test in tests:
        features = source.features(test.images).values
        count = len(test.images)
        hashes = hashes_of(map(test.encoded, range(count)))
        same = same_images(data.contents.hashes, hashes)
        persons = same.copy()
        persons[same >= 0] = data.labels[same[same >= 0]]
        alike = alike_people(features, groups, scale, sure)
        shared = shared_people(persons, alike, names, test.people)
        rows += [_row(test, each, data) for each in shared]
        digest = hashes_digest(row.tobytes() for row in hashes)
        exact = int((same >= 0).sum())
        overlaps.append(Overlap(test.images.name, digest, count, exact, len(shared)))
    return rows, overlaps


def _row(test: ForeignSet, shared: Shared, data: Set) -> dict[str, Any]:
    image = shared.image
    values = (
        test.images.name,
        person_name(data.images.source, shared.label),
        shared.label,
        shared.by,
        None if math.isnan(shared.score) else round(shared.score, 4),
        shared.images,
        image,
        None if image is None else test.images.label(image),
        shared.name,
    )
    return dict(zip(_COLUMNS, values, strict=True))


def write_overlap(
    output: Path, given: str, images: int, rows: Sequence[dict[str, Any]], found: Sequence[Overlap]
) -> None:
    """Write overlap.csv and overlap.json, and the list beside the training set `given`.

    Says what was found, and where the list could not be written.
    """
    text = io.StringIO()
    written = csv.writer(text, lineterminator="\n")
    written.writerow(_COLUMNS)
    written.writerows([cell(row[column]) for column in _COLUMNS] for row in rows)
    write_bytes(output / CSV_FILE, text.getvalue().encode())
    content = {"dataset": given, "people": list(rows)}
    write_bytes(output / JSON_FILE, (json.dumps(content, indent=1) + "\n").encode())
    for each in found:
        cli.say(
            f"{each.name}: {each.people:,} people of {given} are in it; {each.same_images:,} of "
            f"{each.images:,} images are the same bytes"
        )
    beside = overlap_file(given)
    try:
        write_overlaps(beside, images, found)
        cli.say(f"{beside}: training names the overlap in its log")
    except OSError as e:
        cli.say(f"{beside}: cannot be written ({e.strerror}); training will not know of it")
