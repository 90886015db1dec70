"""manifest.json of a converted data set: where it is from, how it was made, and its checksums."""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from uniface_jax.data.formats.seal import MANIFEST_FILE, read_manifest_values, sealed
from uniface_jax.errors import UserError
from uniface_jax.files.atomic import write_bytes

_FORMAT = "uniface_jax.manifest/1"
_SHARD_KEYS = {"file": str, "images": int, "bytes": int, "sha256": str}
_SKIPPED_KEYS = {"index": int, "name": str, "reason": str}
_TURNED_KEYS = {"index": int, "name": str, "orientation": int}
# Of which an older manifest knows nothing.
_LATER_KEYS = ("turned", "dropped", "files")


@dataclass(frozen=True)
class Manifest:
    """A record of what a conversion has read and written.

    Attributes:
        name: of the data set.
        source: the name of what was converted.
        description: a text for people.
        fingerprint: of the source, see sources.base.Source.
        seed, shard_size, check, on_error: see job.ConversionSettings.
        source_images: the source's images, of which `images` were written.
        images: how many were written.
        classes: C.
        class_names_sha256: of the names, a line each.
        multiset_sha256: of all (label, bytes), see multiset.py.
        shards: file, images, bytes and sha256 of each.
        skipped: index in the source, name and reason of each image that was left out.
        turned: index in the source, name and EXIF orientation of each image that is not upright.
        dropped: the source's labels of classes of which every image was left out.
        files: the SHA-256 of the files beside the shards, see formats/seal.py.
    """

    name: str
    source: str
    description: str
    fingerprint: str
    seed: int
    shard_size: int
    check: str
    on_error: str
    source_images: int
    images: int
    classes: int
    class_names_sha256: str
    multiset_sha256: str
    shards: list[dict[str, Any]]
    skipped: list[dict[str, Any]]
    turned: list[dict[str, Any]] = field(default_factory=list)
    dropped: list[int] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)

    @property
    def source_classes(self) -> int:
        """Return the number of the source's classes."""
        return self.classes + len(self.dropped)

    def settings(self) -> dict[str, Any]:
        """Return what decided the bytes of the result, by the keys of job.Job."""
        keys = ("name", "seed", "shard_size", "check", "on_error", "fingerprint")
        settings = {key: getattr(self, key) for key in keys}
        return {**settings, "images": self.source_images, "num_classes": self.source_classes}


def write_manifest(destination: Path, manifest: Manifest) -> None:
    """Write `manifest` into the folder of its data set, atomically."""
    content = sealed({"format": _FORMAT, **dataclasses.asdict(manifest)})
    write_bytes(destination / MANIFEST_FILE, content)


def read_manifest(destination: Path) -> Manifest:
    """Return the manifest of the data set in folder `destination`.

    Raises:
        UserError: it is missing, is no JSON, is of another format, has changed since it was
            written, has other keys or values of another type, or counts that do not add up; the
            message names file and key.
    """
    file = destination / MANIFEST_FILE
    values = read_manifest_values(destination)
    if not isinstance(values, dict) or values.pop("format", None) != _FORMAT:
        raise UserError(f"{file}: not a manifest of the format {_FORMAT}")
    fields = {each.name: each.type for each in dataclasses.fields(Manifest)}
    for key in _LATER_KEYS:
        values.setdefault(key, {} if key == "files" else [])
    for key in (*fields, *values):
        if key not in values or key not in fields:
            state = "missing" if key not in values else "not a key of a manifest"
            raise UserError(f"{file}: {key[:80]!r} is {state}")
    for key, kind in fields.items():
        wanted = kind if isinstance(kind, type) and kind in (str, int) else list
        wanted = dict if key == "files" else wanted
        if type(values[key]) is not wanted:
            raise UserError(
                f"{file}: {key} is a {type(values[key]).__name__}, expected a {wanted.__name__}"
            )
    lists = (("shards", _SHARD_KEYS), ("skipped", _SKIPPED_KEYS), ("turned", _TURNED_KEYS))
    for key, keys in lists:
        for number, entry in enumerate(values[key]):
            if not isinstance(entry, dict) or {k: type(v) for k, v in entry.items()} != keys:
                raise UserError(f"{file}: {key}[{number}]: expected the keys {', '.join(keys)}")
    manifest = Manifest(**values)
    _check_later(file, manifest)
    for number, entry in enumerate(manifest.skipped):
        if not 0 <= entry["index"] < manifest.source_images:
            raise UserError(
                f"{file}: skipped[{number}]: index {entry['index']}, expected "
                f"0..{manifest.source_images - 1}"
            )
    counts = [shard["images"] for shard in manifest.shards]
    if min((manifest.classes, manifest.shard_size, *counts), default=0) < 0 or (
        sum(counts) != manifest.images
        or manifest.images + len(manifest.skipped) != manifest.source_images
    ):
        raise UserError(
            f"{file}: {manifest.images} images and {len(manifest.skipped)} skipped of "
            f"{manifest.source_images}, {sum(counts)} in the shards: they do not add up"
        )
    return manifest


def _check_later(file: Path, manifest: Manifest) -> None:
    """Raise UserError where the classes taken out, or the digests of files, are none."""
    dropped, files = manifest.dropped, manifest.files
    if any(type(label) is not int or not 0 <= label < manifest.source_classes for label in dropped):
        raise UserError(f"{file}: dropped: expected labels of the source's classes")
    if len(set(dropped)) != len(dropped):
        raise UserError(f"{file}: dropped: a class is named twice")
    if any(type(digest) is not str or "/" in name for name, digest in files.items()):
        raise UserError(f"{file}: files: expected names of files with their SHA-256")
