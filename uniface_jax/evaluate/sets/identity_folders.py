"""Identity folders as sets to be evaluated: images, whom they show, and of which population."""

import csv
import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from uniface_jax.data.formats.images import SUFFIXES
from uniface_jax.data.sources.folders import SYSTEM_NAMES, FolderSource, visible
from uniface_jax.errors import UserError
from uniface_jax.evaluate.sets.image_sets import ImageFiles
from uniface_jax.files.reading import open_regular


@dataclass(frozen=True, eq=False)
class Identities:
    """N image files, labels [N], strings equal for one person, and populations [N] or None.

    left_out: the folders that were left out, with the reason.
    """

    images: ImageFiles
    labels: np.ndarray
    populations: np.ndarray | None = None
    left_out: Sequence[str] = ()


def read_identities(name: str, root: Path, *, skip_faults: bool = False) -> Identities:
    """Read root/PERSON/IMAGE, sorted naturally; UserError naming a folder that is not so.

    skip_faults: leave out empty folders and folders inside a person's instead.
    """
    return _read(name, root, {"": root}, skip_faults)


def read_populations(
    name: str, root: Path, table: Path | None = None, *, skip_faults: bool = False
) -> Identities:
    """Read root/PERSON/IMAGE, with populations from `table`, or root/POPULATION/PERSON/IMAGE.

    table: a CSV of lines person,population (a heading of these names may be there), for the first
    form. Without it and without such folders, `populations` is None. skip_faults: leave out empty
    folders and folders inside a person's. Raises UserError naming the folder that is not so, the
    line of the table that is not, and a person who is not in it.
    """
    folders = _folders(root)
    nested = bool(folders) and bool(_folders(folders[0]))
    if not nested:
        found = _read(name, root, {"": root}, skip_faults)
        if table is None:
            return found
        of = _population_of(table)
        persons = found.labels
        missing = next((person for person in persons if person not in of), None)
        if missing is not None:
            raise UserError(f"{table}: no line for {missing}, who is in {root}")
        populations = np.array([of[p] for p in persons])
        return replace(found, populations=populations)
    if table is not None:
        raise UserError(
            f"--data: {table}: {root} has sub-folders of populations already ({folders[0].name})"
        )
    return _read(name, root, {folder.name: folder for folder in folders}, skip_faults)


def read_images_below(name: str, root: Path, what: str) -> ImageFiles:
    """List all images under root, however deep, in order of their paths.

    Raises UserError where there is no such folder, or no image; it expected `what`.
    """
    if not root.is_dir():
        raise UserError(f"{root}: no such folder; expected {what}")
    names = []
    seen: set[str] = set()  # folders may be links, even to one that they are in
    for folder, below, files in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            below.clear()
            continue
        seen.add(real)
        names += [
            (Path(folder) / file).relative_to(root).as_posix()
            for file in files
            if file.lower().endswith(SUFFIXES) and not file.startswith(".")
        ]
    names.sort()
    if not names:
        raise UserError(f"{root}: no images ({', '.join(SUFFIXES)})")
    return ImageFiles(name, root, names)


def _folders(root: Path) -> list[Path]:
    names = visible(root, folders=True)
    return [root / name for name in sorted(names) if name not in SYSTEM_NAMES]


def _read(name: str, root: Path, folders: Mapping[str, Path], skip_faults: bool) -> Identities:
    names: list[str] = []
    labels: list[str] = []
    populations: list[str] = []
    left_out: list[str] = []
    for population, folder in folders.items():
        source = FolderSource(folder, skip_faults=skip_faults)
        left_out += source.faults
        prefix = f"{population}/" if population else ""
        for i in range(len(source)):
            image = prefix + source.item_name(i)
            names.append(image)
            labels.append(image.rpartition("/")[0])
            populations.append(population)
    nested = any(folders)
    return Identities(
        ImageFiles(name, root, names),
        np.array(labels),
        np.array(populations) if nested else None,
        left_out,
    )


def _population_of(table: Path) -> dict[str, str]:
    found: dict[str, str] = {}
    try:
        with io.TextIOWrapper(open_regular(table), "utf-8-sig", newline="") as opened:
            reader = csv.reader(opened, skipinitialspace=True, strict=True)
            for fields in reader:
                cells = [field.strip() for field in fields]
                if not any(cells) or [c.lower() for c in cells] == ["person", "population"]:
                    continue
                if len(cells) != 2 or not all(cells) or cells[0] in found:
                    again = "again" if cells and cells[0] in found else "expected person,population"
                    raise UserError(
                        f"{table}: line {reader.line_num}: {','.join(fields)[:80]!r}; {again}"
                    )
                found[cells[0]] = cells[1]
    except OSError as e:
        raise UserError(f"{table}: cannot be read ({e.strerror})") from e
    except (csv.Error, UnicodeDecodeError) as e:
        raise UserError(f"{table}: no CSV that can be read ({e})") from e
    return found
