"""List of the people and images that a training set shares with sets that networks are tested on.

`clean --against` writes it beside the training set, as DATASET.overlap.json, and training reads it.
A test set is known by its images alone, whatever its file is called and wherever it lies.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from uniface_jax.errors import UserError
from uniface_jax.files.atomic import write_bytes
from uniface_jax.files.bounded_json import read_json

_FORMAT = "uniface_jax.overlap/1"
HASH_BYTES = 16  # of an image's content
_COUNTS = ("images", "same_images", "people")


@dataclass(frozen=True)
class Overlap:
    """Overlap with one test set.

    Attributes:
        name: of the test set.
        digest: set_digest of its images.
        images: how many it has.
        same_images: how many of these are in the training set, byte by byte.
        people: how many of the training set's people it shows, as far as was found.
    """

    name: str
    digest: str
    images: int
    same_images: int
    people: int


def content_hash(image: bytes) -> bytes:
    """Return the hash of an image's encoded bytes, HASH_BYTES of BLAKE2b.

    >>> content_hash(b"").hex()
    'cae66941d9efbd404e4d88758ea67670'
    """
    return hashlib.blake2b(image, digest_size=HASH_BYTES).digest()


def set_digest(images: Iterable[bytes]) -> str:
    """Return a digest of a set of encoded images, whatever their order and however often each.

    >>> set_digest([b"a", b"b", b"a"]) == set_digest([b"b", b"a"])
    True
    """
    return hashes_digest(map(content_hash, images))


def hashes_digest(hashes: Iterable[bytes]) -> str:
    """Return set_digest of the images that have these content hashes."""
    return hashlib.blake2b(b"".join(sorted(set(hashes))), digest_size=HASH_BYTES).hexdigest()


def overlap_file(dataset: str) -> Path:
    """Return where the list of a data set lies, beside it.

    >>> str(overlap_file("data/ms1mv2/")), str(overlap_file("train.rec"))
    ('data/ms1mv2.overlap.json', 'train.rec.overlap.json')
    """
    path = Path(dataset)
    name = path.name or path.resolve().name
    return path.parent / f"{name}.overlap.json"


def write_overlaps(file: Path, images: int, found: Sequence[Overlap]) -> None:
    """Write the list of a training set of so many images."""
    content = {"format": _FORMAT, "images": images, "sets": [asdict(each) for each in found]}
    write_bytes(file, (json.dumps(content, indent=1) + "\n").encode())


def read_overlaps(file: Path) -> tuple[int, list[Overlap]]:
    """Return the training set's number of images, and its overlaps.

    Raises UserError naming a file that is not such a list.
    """
    values: Any = read_json(file, "clean --against writes it")
    try:
        if values["format"] != _FORMAT or type(values["images"]) is not int:
            raise TypeError
        found = [Overlap(**each) for each in values["sets"]]
        for each in found:
            if any(type(getattr(each, key)) is not int for key in _COUNTS):
                raise TypeError
            if type(each.name) is not str or type(each.digest) is not str:
                raise TypeError
    except (KeyError, TypeError) as e:
        raise UserError(f"{file}: not a list that clean --against has written; remove it") from e
    return values["images"], found
