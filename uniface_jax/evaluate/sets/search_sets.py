"""Galleries and probes of one's own, as folders of people or as one table."""

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from uniface_jax.errors import UserError
from uniface_jax.evaluate.sets.identity_folders import read_identities, read_images_below
from uniface_jax.evaluate.sets.image_sets import ImageFiles
from uniface_jax.files.reading import open_regular

GALLERY, PROBE, UNKNOWN = "gallery", "probe", "unknown"
SIDES = (GALLERY, PROBE, UNKNOWN)
NOBODY = ""  # the person of an unknown probe, whom no gallery has
_HEADING = ["image", "person", "set"]
_LINE = f"image,person,set with a set of {', '.join(SIDES)}, and a person unless it is unknown"


@dataclass(frozen=True, eq=False)
class Side:
    """Images and people of the gallery or of the probes.

    Attributes:
        images: one or several sets of images, their features one after another.
        people: [N], strings, of all images; NOBODY for a probe that is known not to be in it.
    """

    images: tuple[ImageFiles, ...]
    people: np.ndarray


@dataclass(frozen=True, eq=False)
class SearchSet:
    """Gallery and probes. left_out: folders that were left out, with the reason."""

    gallery: Side
    probes: Side
    left_out: tuple[str, ...] = ()


def read_search_folders(
    gallery: Path, probe: Path, unknown: Path | None = None, *, skip_faults: bool = False
) -> SearchSet:
    """Read gallery/PERSON/IMAGE, probe/PERSON/IMAGE and, however deep, the images of unknown.

    skip_faults: as in read_identities. Raises UserError naming the folder that is not so, and a
    folder of unknown people that is called as a person of the gallery.
    """
    known, asked = (
        read_identities(f"open_set_{side}", folder, skip_faults=skip_faults)
        for side, folder in ((GALLERY, gallery), (PROBE, probe))
    )
    probes = Side((asked.images,), asked.labels)
    if unknown is not None:
        others = read_images_below("open_set_unknown", unknown, "images of unknown people")
        enrolled = set(known.labels.tolist())
        for name in others.names:
            person = str(PurePosixPath(name).parent)
            if person in enrolled:
                raise UserError(
                    f"{unknown / name}: of {person}, who is in the gallery {gallery}; expected "
                    "people who are not"
                )
        nobody = np.full(len(others), NOBODY)
        probes = Side((asked.images, others), np.concatenate([asked.labels, nobody]))
    left_out = (*known.left_out, *asked.left_out)
    return SearchSet(Side((known.images,), known.labels), probes, left_out)


def read_search_table(table: Path, root: Path | None = None) -> SearchSet:
    """Read a CSV of lines image,person,set, whose heading may be there.

    root: the folder of the images; None takes the table's. Raises UserError naming the line that is
    none, an image that is not there or stands twice, and an unknown person of the gallery.
    """
    root = table.parent if root is None else root
    names: dict[str, list[str]] = {side: [] for side in SIDES}
    people: dict[str, list[str]] = {side: [] for side in SIDES}
    lines: dict[str, int] = {}
    for number, image, person, side in _rows(table):
        where = f"{table}: line {number}: {image[:80]}"
        if image in lines:
            raise UserError(f"{where} again, after line {lines[image]}")
        if ".." in Path(image).parts or Path(image).is_absolute() or not (root / image).is_file():
            raise UserError(f"{where}: no such image in {root}")
        lines[image] = number
        names[side].append(image)
        people[side].append(person)
    for side in (GALLERY, PROBE):
        if not names[side]:
            raise UserError(f"{table}: no line of the set {side}; expected {_LINE}")
    enrolled = set(people[GALLERY])
    for image, person in zip(names[UNKNOWN], people[UNKNOWN], strict=True):
        if person in enrolled:
            raise UserError(
                f"{table}: line {lines[image]}: {image[:80]} is unknown, but {person} is in the "
                "gallery"
            )
    files = {
        side: ImageFiles(f"open_set_{side}", root, found, whole=False)
        for side, found in names.items()
        if found
    }
    asked = [*people[PROBE], *(NOBODY for _ in people[UNKNOWN])]
    probes = tuple(files[side] for side in (PROBE, UNKNOWN) if side in files)
    return SearchSet(
        Side((files[GALLERY],), np.array(people[GALLERY])), Side(probes, np.array(asked))
    )


def _rows(table: Path) -> Iterator[tuple[int, str, str, str]]:
    """Yield number, image, person and set of each line that is no heading and not empty."""
    try:
        with io.TextIOWrapper(open_regular(table), "utf-8-sig", newline="") as opened:
            reader = csv.reader(opened, skipinitialspace=True, strict=True)
            for fields in reader:
                cells = [field.strip() for field in fields]
                if not any(cells) or [cell.lower() for cell in cells] == _HEADING:
                    continue
                named = len(cells) == 3 and cells[2] in SIDES and cells[0]
                if not named or (not cells[1] and cells[2] != UNKNOWN):
                    line = ",".join(fields)[:80]
                    raise UserError(f"{table}: line {reader.line_num}: {line!r}; expected {_LINE}")
                yield reader.line_num, cells[0], cells[1], cells[2]
    except OSError as e:
        raise UserError(f"{table}: cannot be read ({e.strerror})") from e
    except (csv.Error, UnicodeDecodeError) as e:
        raise UserError(f"{table}: no CSV that can be read ({e})") from e
