"""Digests that bind the files of a converted data set to its manifest, and the manifest to itself.

manifest.json states the SHA-256 of every small file beside it, and in `digest` that of its own
bytes with zeros in the digest's place, so that a flipped bit in any of them is noticed. Manifests
of before have neither, and are believed.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from uniface_jax.errors import UserError
from uniface_jax.files.bounded_json import read_json
from uniface_jax.files.reading import open_regular

MANIFEST_FILE = "manifest.json"
_KEY = "digest"
_EMPTY = "0" * 64
_HINT = "python -m uniface_jax.convert writes it"


def sealed(values: Mapping[str, Any]) -> bytes:
    """Return `values` as indented JSON whose last key is the digest of it all.

    Example:
        >>> content = sealed({"images": 3})
        >>> json.loads(content)["images"], is_whole(content)
        (3, True)
        >>> is_whole(content.replace(b"3", b"7", 1))
        False
    """
    content = json.dumps({**values, _KEY: _EMPTY}, indent=1).encode() + b"\n"
    before, _, after = content.rpartition(_EMPTY.encode())
    return before + hashlib.sha256(content).hexdigest().encode() + after


def is_whole(content: bytes) -> bool:
    """Return False for what `sealed` has written and something has changed."""
    begin = content.rfind(b'"%s": "' % _KEY.encode()) + len(_KEY) + 5
    if begin < len(_KEY) + 5 + 1:
        return False
    stated, end = content[begin : begin + len(_EMPTY)], begin + len(_EMPTY)
    empty = content[:begin] + _EMPTY.encode() + content[end:]
    return stated == hashlib.sha256(empty).hexdigest().encode()


def read_manifest_values(folder: Path) -> Any:
    """Return the JSON of the manifest in `folder`, without its digest, which is checked.

    Raises:
        UserError: the file is missing, no JSON, or has changed since it was written.
    """
    file = folder / MANIFEST_FILE
    values = read_json(file, _HINT)
    if not isinstance(values, dict) or (_KEY not in values and "files" not in values):
        return values  # of before, or none
    with open_regular(file) as opened:
        whole = is_whole(opened.read())
    if not whole:
        raise UserError(f"{file}: damaged: its digest is not that of its bytes")
    values.pop(_KEY)
    return values


def file_digest(file: Path) -> str:
    """Return the SHA-256 of a regular file, hexadecimal; OSError where it cannot be read."""
    with open_regular(file) as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def check_file(folder: Path, name: str, stated: str) -> None:
    """Raise UserError where a file of the data set in `folder` is not the one of the manifest."""
    file = folder / name
    try:
        found = file_digest(file)
    except OSError as e:
        raise UserError(f"{file}: cannot be read ({e.strerror})") from e
    if found != stated:
        raise UserError(
            f"{file}: damaged, or of another data set: its SHA-256 is not the one in "
            f"{MANIFEST_FILE}"
        )


def check_indices(folder: Path, names: tuple[str, ...]) -> None:
    """Raise UserError where an index is not the manifest's; one that is missing is made again.

    A folder without a manifest, and one whose manifest states no digests, are believed.
    """
    if not (folder / MANIFEST_FILE).is_file():
        return
    values = read_manifest_values(folder)
    stated = values.get("files") if isinstance(values, dict) else None
    for name in names:
        digest = stated.get(name) if isinstance(stated, dict) else None
        if digest is not None and (folder / name).is_file():
            try:
                check_file(folder, name, digest)
            except UserError as e:
                raise UserError(f"{e}; without that file the data set is whole") from e
