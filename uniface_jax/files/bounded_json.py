"""JSON that may come from anywhere: read within bounds, and refused in one line."""

import errno
import json
from pathlib import Path
from typing import Any

from uniface_jax.errors import UserError
from uniface_jax.files.reading import read_regular

MAX_BYTES = 1 << 28
MAX_DEPTH = 64  # lists and objects inside one another
_MAX_DIGITS = 20  # of 64 bits and a sign; a count of more cannot even be shown in a message


def read_json(file: Path, hint: str) -> Any:
    """Return the value in `file`.

    Args:
        file: a JSON file in UTF-8.
        hint: how to get the file, for the message where it is missing.

    Raises:
        UserError: the file, which the message names, is missing, cannot be read, is over 256 MiB,
            is not UTF-8 or no JSON, is nested too deeply, or holds a whole number of more digits
            than 64 bits have.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = (Path(folder) / "run.json").write_text('{"step": 3}')
        ...     read_json(Path(folder) / "run.json", "training writes it")
        {'step': 3}
    """
    try:
        return parse_json(read_regular(file, MAX_BYTES))
    except OSError as e:
        hint = "" if e.errno == errno.EFBIG else f"; {hint}"
        raise UserError(f"{file}: {e.strerror}{hint}") from e
    except ValueError as e:
        raise UserError(f"{file}: not JSON ({' '.join(str(e).split())[:80]})") from e


def parse_json(text: bytes | str) -> Any:
    """Return the value that a JSON text stands for.

    Raises ValueError alone: for what is not UTF-8 or no JSON, is more than MAX_DEPTH levels deep,
    at which whatever walks it would fail, or holds a whole number of more digits than 64 bits have.

    Example:
        >>> parse_json(b'{"step": 3}')
        {'step': 3}
    """
    try:
        content = text.encode("utf-8") if isinstance(text, str) else text  # no surrogates
        value = json.loads(content, parse_int=_integer)
    except RecursionError as e:
        raise ValueError("nested too deeply") from e
    if depth_is_above(value, MAX_DEPTH):
        raise ValueError("nested too deeply")
    return value


def depth_is_above(value: Any, limit: int) -> bool:
    """Return True where lists and objects lie more than `limit` levels inside one another.

    Example:
        >>> depth_is_above([{"a": 1}], 2), depth_is_above([{"a": []}], 2)
        (False, True)
    """
    level = [value]
    for _ in range(limit):
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, dict | list)
        ]
        if not level:
            return False
    return True


def _integer(text: str) -> int:
    """Return the number in `text`; ValueError where it has more digits than 64 bits need."""
    if len(text) > _MAX_DIGITS:
        raise ValueError(f"a number of {len(text)} digits")
    return int(text)
