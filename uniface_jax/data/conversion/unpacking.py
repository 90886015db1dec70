"""Unpacking of any source as identity folders, or as RecordIO in insightface's layout."""

import hashlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from tqdm import tqdm

from uniface_jax.data.conversion.recordio_writer import write_insightface
from uniface_jax.data.formats import image_headers
from uniface_jax.data.sources.base import Item, Source
from uniface_jax.errors import UserError
from uniface_jax.files.atomic import replacing
from uniface_jax.files.reading import read_regular

_SUFFIXES = {
    "JPEG": (".jpg", ".jpeg"),
    "PNG": (".png",),
    "PPM": (".ppm", ".pgm"),
    "BMP": (".bmp",),
    "WEBP": (".webp",),
}
_MAX_NAME_BYTES = 200  # bytes; file systems take 255


def write_folders(source: Source, destination: Path) -> int:
    """Write destination/<class>/<image> for every item of `source`; return how many are new.

    The bytes are the source's. Folders bear the class names, or the labels where there are none;
    files the items' names without their folders. What file systems do not take is replaced, and a
    name that came up before gets a number, so that no image replaces another. Files that an earlier
    run has written are not written again.

    Raises:
        UserError: a file of other bytes is there.

    Example:
        >>> import tempfile
        >>> from uniface_jax.data.sources.synthetic import SyntheticSource
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_folders(SyntheticSource(2, 4), Path(folder))
        ...     sorted(str(file.relative_to(folder)) for file in Path(folder).rglob("*.jpg"))
        4
        ['0/0.jpg', '0/2.jpg', '1/1.jpg', '1/3.jpg']
    """
    folders = folder_names(source)
    seen: set[int] = set()  # hashes: 42 million names would not fit
    new = 0
    for index in _progress(source, "unpack"):
        item = source[index]
        relative = _unused(folders[item.label], _file_name(item), seen)
        new += _write(destination / relative, item.image)
    return new


def write_recordio(source: Source, destination: Path) -> None:
    """Write train.rec, train.idx and property into `destination`, images in the order of classes.

    Label maps are not kept: RecordIO has no place for them. The labels are 0..C-1.

    Raises:
        UserError: there is a train.rec already, or a class has no image, which the layout cannot
            say.
    """
    if (destination / "train.rec").exists():
        raise UserError(f"{destination / 'train.rec'}: exists already; remove it first")
    labels = np.fromiter((source[i].label for i in _progress(source, "labels")), np.int32)
    if len(np.unique(labels)) != source.num_classes:
        empty = int(np.flatnonzero(np.bincount(labels, minlength=source.num_classes) == 0)[0])
        raise UserError(f"{source.name}: class {empty} has no image; RecordIO cannot hold that")
    order = np.argsort(labels, kind="stable")
    first = source[int(order[0])]
    _, height, width = image_headers.inspect(first.image, f"{source.name}: {first.name}")

    def items() -> Iterator[Item]:
        return (source[int(order[i])] for i in _progress(source, "write"))

    try:
        write_insightface(destination, items(), len(source), (height, width))
    except OSError as e:
        raise UserError(f"{destination}: cannot be written ({e.strerror})") from e


def _progress(source: Source, what: str) -> "tqdm[int]":
    """Return a bar over the positions of `source`."""
    return tqdm(range(len(source)), desc=what, unit=" images", disable=not sys.stderr.isatty())


def folder_names(source: Source) -> list[str]:
    """Return the folder's name of each class, no two the same even where case does not count."""
    if source.class_names is None:
        width = len(str(source.num_classes - 1))
        return [f"{label:0{width}d}" for label in range(source.num_classes)]
    names = [_safe(name) or "_" for name in source.class_names]
    seen: set[str] = set()
    for label, name in enumerate(names):
        if name.lower() in seen:  # of two names that became one, and where case does not count
            names[label] = f"{name}-{label}"
        seen.add(names[label].lower())
    return names


def _file_name(item: Item) -> str:
    """Return the item's own file name with a suffix that fits its bytes."""
    name = _safe(re.split(r"[/\\]", item.name)[-1]) or "image"
    kind, _, _ = image_headers.inspect(item.image, item.name)
    suffixes = _SUFFIXES[kind]
    return name if name.lower().endswith(suffixes) else name + suffixes[0]


def _safe(name: str) -> str:
    """Return a name for one file or folder: no separators, not hidden, nothing that goes upward."""
    name = re.sub(r'[\x00-\x1f/\\:*?"<>|]', "_", name).strip(" ").lstrip(".")
    while len(name.encode("utf-8", "surrogateescape")) > _MAX_NAME_BYTES:
        name = name[:-1]
    return name


def _unused(folder: str, name: str, seen: set[int]) -> Path:
    """Return a path that no image has had before, and note it in `seen`."""
    stem, dot, suffix = name.rpartition(".")
    number, candidate = 1, name
    while True:
        digest = hashlib.blake2b(f"{folder}/{candidate}".lower().encode("utf-8", "surrogateescape"))
        key = int.from_bytes(digest.digest()[:8], "little")
        if key not in seen:
            seen.add(key)
            return Path(folder) / candidate
        number += 1
        candidate = f"{stem}-{number}{dot}{suffix}"


def _write(file: Path, content: bytes) -> bool:
    """Write a file unless it is there; without waiting for the disk, there may be millions."""
    try:
        if file.exists():
            if read_regular(file, len(content)) == content:
                return False
            raise UserError(f"{file}: exists already with other bytes; give another DEST")
        with replacing(file, synced=False) as temporary:
            temporary.write_bytes(content)
    except OSError as e:
        raise UserError(f"{file}: cannot be written ({e.strerror})") from e
    return True
