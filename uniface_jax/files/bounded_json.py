"""Reads JSON that may come from anywhere: bounded, and wrong in one line."""

import json
from pathlib import Path
from typing import Any

from uniface_jax.errors import UserError

MAX_BYTES = 1 << 28
_DIGITS = 20  # of 64 bits and a sign; a count of more cannot even be shown in a message


def read_json(file: Path, hint: str) -> Any:
    """The value in `file`.

    Raises UserError naming it when it is missing (`hint` says how to get it), cannot be read, is
    over 256 MiB, is not UTF-8 or no JSON, or holds a whole number of more than 64 bits' digits.
    """
    try:
        size = file.stat().st_size
        if size > MAX_BYTES:
            raise UserError(f"{file}: {size} bytes; at most {MAX_BYTES} are read")
        return json.loads(file.read_bytes(), parse_int=_integer)
    except OSError as e:
        raise UserError(f"{file}: {e.strerror}; {hint}") from e
    except UserError:
        raise
    except (ValueError, RecursionError) as e:
        raise UserError(f"{file}: not JSON ({' '.join(str(e).split())[:80]})") from e


def _integer(text: str) -> int:
    if len(text) > _DIGITS:
        raise ValueError(f"a number of {len(text)} digits")
    return int(text)
