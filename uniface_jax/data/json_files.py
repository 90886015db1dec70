"""Reads JSON that may come from anywhere: bounded, and wrong in one line."""

import json
from pathlib import Path
from typing import Any

from uniface_jax.errors import UserError

MAX_BYTES = 1 << 28


def read_json(file: Path, hint: str) -> Any:
    """The value in `file`.

    Raises UserError naming it when it is missing (`hint` says how to get it), cannot be read, is
    over 256 MiB, is not UTF-8 or no JSON.
    """
    try:
        size = file.stat().st_size
        if size > MAX_BYTES:
            raise UserError(f"{file}: {size} bytes; at most {MAX_BYTES} are read")
        return json.loads(file.read_bytes())
    except OSError as e:
        raise UserError(f"{file}: {e.strerror}; {hint}") from e
    except UserError:
        raise
    except (ValueError, RecursionError) as e:
        raise UserError(f"{file}: not JSON ({' '.join(str(e).split())[:80]})") from e
