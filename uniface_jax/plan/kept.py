"""Compiled programs kept between plans, by a hash of all that they were compiled from.

Compiling a step for an accelerator takes minutes. Kept are the program's text and its account of
memory, which is what a count is made of; nothing that is kept ever runs. A file begins with the
SHA-256 of what follows, so that a damaged one is noticed, told and made anew.
"""

import hashlib
import json
import logging
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from uniface_jax.files.atomic import write_bytes
from uniface_jax.files.reading import read_regular
from uniface_jax.plan.program import CompiledMemory

FORMAT = "uniface_jax compiled program 2"
MAX_FILE_BYTES, MAX_BYTES = 1 << 28, 1 << 31  # of a file, and of what is compressed in it
_DIGEST = 64  # hexadecimal digits, and a line's end after them

_log = logging.getLogger(__name__)


class Program(NamedTuple):
    """Program as a compiler made it: bytes on each device, its text, and the seconds it took."""

    memory: CompiledMemory
    text: str
    seconds: float


def key(parts: Iterable[str]) -> str:
    """Return the name of what was compiled from these texts, which no other texts have.

    Example:
        >>> key(["ab", "c"]) == key(["a", "bc"])
        False
    """
    digest = hashlib.sha256(FORMAT.encode())
    for part in parts:
        content = part.encode()
        digest.update(f"{len(content)}:".encode() + content)
    return digest.hexdigest()


def read(folder: Path, name: str) -> Program | None:
    """Return the program that is kept as `name`; None where there is none, or a damaged one."""
    file = folder / name
    try:
        return parsed(read_regular(file, MAX_FILE_BYTES))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, zlib.error) as e:
        _log.warning("%s: damaged (%s); compiling anew", file, e)
        return None


def write(folder: Path, name: str, program: Program) -> None:
    """Keep a program as `name`; where that cannot be written, it is told, and not kept."""
    try:
        write_bytes(folder / name, packed(program), mode=0o600)
    except OSError as e:
        _log.warning("%s: the compiled program is not kept (%s)", e.filename, e.strerror)


def packed(program: Program) -> bytes:
    """Return a program as a file's bytes."""
    record = {"memory": program.memory._asdict(), "text": program.text, "seconds": program.seconds}
    content = zlib.compress(json.dumps(record).encode())
    return hashlib.sha256(content).hexdigest().encode() + b"\n" + content


def parsed(content: bytes) -> Program:
    """Return the program in a file's bytes. Raises ValueError and zlib.error."""
    digest, compressed = content[:_DIGEST], content[_DIGEST + 1 :]
    if hashlib.sha256(compressed).hexdigest().encode() != digest:
        raise ValueError("its SHA-256 is another")
    inflate = zlib.decompressobj()
    plain = inflate.decompress(compressed, MAX_BYTES)
    if not inflate.eof:
        raise ValueError(f"more than {MAX_BYTES} bytes, or cut short")
    record = json.loads(plain)
    try:
        memory = CompiledMemory(int(record["memory"]["held"]), int(record["memory"]["working"]))
        return Program(memory, str(record["text"]), float(record["seconds"]))
    except (KeyError, TypeError) as e:
        raise ValueError(f"it lacks {e}") from e
