"""Folders of photographs, one identity a sub-folder: aligned, with a report of what was found."""

import dataclasses
import json
import sys
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from uniface_jax.data.faces.alignment import FaceDetector, align
from uniface_jax.data.formats import images
from uniface_jax.data.sources.folders import FolderSource
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
        several_faces: the most prominent one was taken.
        unreadable: left out.
        skipped: not images by their suffix.
    """

    source: str
    aligned: int = 0
    already_done: int = 0
    no_face: list[str] = field(default_factory=list)
    several_faces: list[str] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)


def align_folders(source: FolderSource, destination: Path, detector: FaceDetector) -> Report:
    """Write <identity>/<file name>.png, 112x112 RGB, for every photograph of `source`.

    Gray photographs give gray PNG. Faces that an earlier run has written are not done again. The
    report goes to `destination`/alignment.json as well.

    Raises:
        UserError: `destination` is inside of `source` or the other way round, or holds the report
            of another source.
    """
    here, there = source.path.resolve(), destination.resolve()
    if here == there or here in there.parents or there in here.parents:
        raise UserError(f"{destination}: DEST must lie outside of SOURCE, {source.path}")
    report_file = destination / REPORT_FILE
    before = _read_report(report_file)
    if before and before.source != str(here):
        raise UserError(
            f"{report_file}: holds the faces of {before.source}, not of {here}; give another DEST"
        )
    several = set(before.several_faces) if before else set()
    report = Report(str(here), skipped=source.skipped)
    names = [source.item_name(i) for i in range(len(source))]
    targets = _targets(names, destination)
    rows = tqdm(
        zip(names, targets, strict=True),
        total=len(names),
        unit=" images",
        desc="align",
        disable=not sys.stderr.isatty(),
    )
    for number, (name, target) in enumerate(rows):
        if target.is_file():
            report.already_done += 1
            report.aligned += 1
            if name in several:
                report.several_faces.append(name)
        else:
            _align_one(source[number].image, name, target, detector, report)
    content = json.dumps(dataclasses.asdict(report), indent=1)  # ASCII: any file name can be held
    write_bytes(report_file, content.encode("ascii") + b"\n")
    return report


def _align_one(
    encoded: bytes, name: str, target: Path, detector: FaceDetector, report: Report
) -> None:
    """Write the most prominent face of one photograph, and note its fate in `report`."""
    try:
        image = images.decode(encoded, name)
    except UserError:
        report.unreadable.append(name)
        return
    faces = detector.detect(image)
    if not faces:
        report.no_face.append(name)
        return
    if len(faces) > 1:
        report.several_faces.append(name)
    face = align(image, faces[0].landmarks)
    gray = (face == face[..., :1]).all()
    write_bytes(target, images.encode_png(face[..., 0] if gray else face))
    report.aligned += 1


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
        return Report(**parse_json(read_regular(file, MAX_BYTES)))
    except (OSError, ValueError, TypeError) as e:
        raise UserError(f"{file}: not the report of an alignment ({str(e)[:80]})") from e
