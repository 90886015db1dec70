"""Folders of photographs, one identity a sub-folder: aligned, with a report of what was found."""

import dataclasses
import json
import sys
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

from uniface_jax.data.faces.alignment import CHOICES, Face, FaceDetector, align
from uniface_jax.data.formats import images
from uniface_jax.data.sources.folders import FolderSource
from uniface_jax.data.sources.photographs import FlatFolder, is_flat
from uniface_jax.errors import UserError
from uniface_jax.files.atomic import write_bytes
from uniface_jax.files.bounded_json import MAX_BYTES, parse_json
from uniface_jax.files.reading import read_regular

REPORT_FILE = "alignment.json"


@dataclass
class Report:
    """Fate of every photograph; names are relative to the source.

    Attributes:
        source: the folder of the photographs.
        aligned: faces in the destination, already_done of them from an earlier run.
        already_done: faces of an earlier run.
        no_face: left out.
        several_faces: the one that `choose` says was taken.
        unreadable: left out.
        skipped: not images by their suffix.
        choose: the rule by which one of several faces was taken, a key of alignment.CHOICES.
        faults: folders that were left out.
        faces: of each photograph with a face: the file that it became, the number of faces found,
            and of the one taken box (x, y, width, height) and landmarks in pixels of the upright
            photograph, and score. None where an earlier version has aligned it.
    """

    source: str
    aligned: int = 0
    already_done: int = 0
    no_face: list[str] = field(default_factory=list)
    several_faces: list[str] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    choose: str = "prominent"
    faults: list[str] = field(default_factory=list)
    faces: dict[str, dict[str, Any]] = field(default_factory=dict)


def open_photographs(path: Path, *, skip_faults: bool = False) -> FolderSource | FlatFolder:
    """Open folders of people, or one folder of photographs where there are no folders in it.

    Raises UserError where there are neither, and as FolderSource does.
    """
    if is_flat(path):
        return FlatFolder(path)
    return FolderSource(path, skip_faults=skip_faults)


def align_folders(
    source: FolderSource | FlatFolder,
    destination: Path,
    detector: FaceDetector,
    choose: str = "prominent",
) -> Report:
    """Write <identity>/<file name>.png, 112x112 RGB, for every photograph of `source`.

    Gray photographs give gray PNG. Faces that an earlier run has written are not done again. The
    report goes to `destination`/alignment.json as well, also where a run is interrupted.

    Args:
        source: the photographs.
        destination: the folder of the faces.
        detector: finds them.
        choose: the rule by which one of several faces is taken, a key of alignment.CHOICES.

    Raises:
        UserError: `destination` is inside of `source` or the other way round, or holds the report
            of another source, or of another rule.
    """
    before, report_file = _before(source, destination, choose), destination / REPORT_FILE
    several = set(before.several_faces)
    report = Report(before.source, skipped=source.skipped, choose=choose, faults=source.faults)
    names = [source.item_name(i) for i in range(len(source))]
    targets = _targets(names, destination)
    rows = tqdm(
        zip(names, targets, strict=True),
        total=len(names),
        unit=" images",
        desc="align",
        disable=not sys.stderr.isatty(),
    )
    try:
        for number, (name, target) in enumerate(rows):
            file = target.relative_to(destination).as_posix()
            if target.is_file():
                report.already_done += 1
                report.aligned += 1
                if name in several:
                    report.several_faces.append(name)
                report.faces[name] = before.faces.get(name) or _face(file)
            elif found := _align_one(source, number, target, detector, report):
                report.faces[name] = _face(file, *found)
    finally:
        # Of an interrupted run: what an earlier one knew of the photographs that were not reached.
        left = set(names) - report.faces.keys()
        report.faces |= {name: before.faces[name] for name in before.faces.keys() & left}
        report.several_faces += sorted(several & left - set(report.several_faces))
        # ASCII: any file name can be held.
        content = json.dumps(dataclasses.asdict(report), indent=1).encode("ascii")
        write_bytes(report_file, content + b"\n")
    return report


def _before(source: FolderSource | FlatFolder, destination: Path, choose: str) -> Report:
    """Return the report of an earlier run, an empty one where there was none."""
    here, there = source.path.resolve(), destination.resolve()
    if here == there or here in there.parents or there in here.parents:
        raise UserError(f"{destination}: DEST must lie outside of SOURCE, {source.path}")
    file = destination / REPORT_FILE
    before = _read_report(file) or Report(str(here), choose=choose)
    if before.source != str(here):
        raise UserError(
            f"{file}: holds the faces of {before.source}, not of {here}; give another DEST"
        )
    if before.choose != choose:
        raise UserError(
            f"{file}: holds faces chosen by {before.choose}, not by {choose}; give another DEST"
        )
    return before


def _face(file: str, face: Face | None = None, found: int | None = None) -> dict[str, Any]:
    """Return what the report says of a photograph's face."""
    return {
        "file": file,
        "found": found,
        "box": None if face is None else face.box.round(2).tolist(),
        "score": None if face is None else round(face.score, 4),
        "landmarks": None if face is None else face.landmarks.round(2).tolist(),
    }


def _align_one(
    source: FolderSource | FlatFolder,
    number: int,
    target: Path,
    detector: FaceDetector,
    report: Report,
) -> tuple[Face, int] | None:
    """Write the chosen face of a photograph, and note its fate; return it, and how many there are.

    None where there is no face, or no image.
    """
    name = source.item_name(number)
    try:
        image = images.decode(source[number].image, name)
    except UserError:
        report.unreadable.append(name)
        return None
    faces = detector.detect(image)
    if not faces:
        report.no_face.append(name)
        return None
    if len(faces) > 1:
        report.several_faces.append(name)
    rule = CHOICES[report.choose]
    chosen = max(faces, key=lambda each: rule(each, image.shape))
    face = align(image, chosen.landmarks)
    gray = (face == face[..., :1]).all()
    write_bytes(target, images.encode_png(face[..., 0] if gray else face))
    report.aligned += 1
    return chosen, len(faces)


def _targets(names: list[str], destination: Path) -> list[Path]:
    """Return the faces' files: 1.jpg becomes 1.png, or 1.jpg.png where two would be the same."""
    stems = [name.rsplit(".", 1)[0] for name in names]
    seen: dict[str, int] = {}
    for stem in stems:
        seen[stem] = seen.get(stem, 0) + 1
    return [
        destination / (f"{stem}.png" if seen[stem] == 1 else f"{name}.png")
        for stem, name in zip(stems, names, strict=True)
    ]


def _read_report(file: Path) -> Report | None:
    """Return the report of an earlier run, or None."""
    if not file.is_file():
        return None
    try:
        report = Report(**parse_json(read_regular(file, MAX_BYTES)))
        for each in dataclasses.fields(Report):
            value = getattr(report, each.name)
            if not _is_of(value, each.type):
                raise TypeError(f"{each.name} is {str(value)[:40]!r}")
    except (OSError, ValueError, TypeError) as e:
        raise UserError(f"{file}: not the report of an alignment ({str(e)[:80]})") from e
    return report


def _is_of(value: Any, kind: Any) -> bool:
    """Return True where a JSON value is of a type that a field of Report has."""
    if typing.get_origin(kind) is list:
        return isinstance(value, list) and all(isinstance(name, str) for name in value)
    if typing.get_origin(kind) is dict:
        return isinstance(value, dict) and all(isinstance(face, dict) for face in value.values())
    return type(value) is kind
