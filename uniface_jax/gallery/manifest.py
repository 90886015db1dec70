"""The one file that says what a gallery is: its segments, the rows removed, each file's digest.

It is swapped atomically, and no other file changes once it is written: who reads a manifest, and
opens what it names, sees one state of the gallery, the one before a change or the one after it.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import google_crc32c

from uniface_jax.errors import UserError
from uniface_jax.files.atomic import write_bytes
from uniface_jax.files.bounded_json import read_json
from uniface_jax.native.nearest import MAX_WIDTH

MANIFEST, FORMAT = "manifest.json", 1
MAX_ROWS = 1 << 40
_NAME_LETTERS = set("0123456789abcdef")


@dataclass(frozen=True)
class SegmentEntry:
    """Rows that were added together: the stem of their files, how many, CRC-32C by suffix.

    texts: the bytes of all names, and of all people. source: the data set or folder that embed
    read, "" where it is not known.
    """

    stem: str
    rows: int
    texts: tuple[int, int]
    digests: Mapping[str, int]
    source: str


@dataclass(frozen=True)
class Manifest:
    """State of a gallery.

    width: D. next_id: of the next row that is added. generation: how many changes there were.
    model: name, sha256 and description, {} where it is not known. removed: stem, count and CRC-32C
    of the file of the ids of rows that do not count, None where there are none.
    """

    width: int
    next_id: int = 0
    generation: int = 0
    model: Mapping[str, str] | None = None
    segments: tuple[SegmentEntry, ...] = ()
    removed: tuple[str, int, int] | None = None

    @property
    def rows(self) -> int:
        """Return the rows that count."""
        return sum(entry.rows for entry in self.segments) - (self.removed[1] if self.removed else 0)

    def changed(self, **values: Any) -> "Manifest":
        """Return the next state."""
        return replace(self, generation=self.generation + 1, **values)

    def stems(self) -> set[str]:
        """Return the stems of all files that this state consists of."""
        removed = [self.removed[0]] if self.removed else []
        return {*(entry.stem for entry in self.segments), *removed}


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Make `manifest` the state of the gallery, at once."""
    content = {"format": FORMAT, **asdict(manifest)}
    content["check"] = _check_of(content)
    write_bytes(folder / MANIFEST, (json.dumps(content, indent=1) + "\n").encode())


def read_manifest(folder: Path) -> Manifest:
    """Return the state of the gallery in a folder.

    Raises:
        UserError: there is none, it is of another version, or its manifest is damaged.
    """
    file = folder / MANIFEST
    found = read_json(file, "python -m uniface_jax.gallery build makes a gallery")
    try:
        if found["format"] != FORMAT:
            raise UserError(f"{file}: of format {str(found['format'])[:20]}; expected {FORMAT}")
        check = found.pop("check")
        if check != _check_of(found):
            raise UserError(f"{file}: damaged: it is not what was written")
        del found["format"]
        segments = tuple(map(_entry, found.pop("segments")))
        removed = found.pop("removed")
        manifest = Manifest(
            **found, segments=segments, removed=None if removed is None else tuple(removed)
        )
        _expect(manifest)
    except (KeyError, TypeError, AttributeError, ValueError) as e:
        if isinstance(e, UserError):
            raise
        raise UserError(f"{file}: not the manifest of a gallery") from e
    return manifest


def _entry(found: dict[str, Any]) -> SegmentEntry:
    first, second = found.pop("texts")
    return SegmentEntry(**found, texts=(first, second))


def _expect(manifest: Manifest) -> None:
    """Raise ValueError for what no gallery has, as names that lead out of its folder."""
    counts = [manifest.next_id, manifest.generation]
    counts += [count for entry in manifest.segments for count in (entry.rows, *entry.texts)]
    if not all(type(count) is int and 0 <= count <= MAX_ROWS for count in counts):
        raise ValueError("counts")
    if type(manifest.width) is not int or not 1 <= manifest.width <= MAX_WIDTH:
        raise ValueError("width")
    for entry in manifest.segments:
        digests = entry.digests
        if not entry.rows or not isinstance(entry.source, str) or not isinstance(digests, dict):
            raise ValueError("segment")
        if not all(type(digest) is int for digest in digests.values()):
            raise ValueError("digests")
    if not all(set(stem[1:]) <= _NAME_LETTERS and len(stem) == 33 for stem in manifest.stems()):
        raise ValueError("names")
    if manifest.removed and not all(type(number) is int for number in manifest.removed[1:]):
        raise ValueError("removed")
    if manifest.model is not None and not all(
        isinstance(text, str) for pair in manifest.model.items() for text in pair
    ):
        raise ValueError("model")


def _check_of(content: Mapping[str, Any]) -> int:
    return int(google_crc32c.value(json.dumps(content, sort_keys=True).encode()))
