"""Scores of a workdir's checkpoints, in a file beside them.

A checkpoint is saved before it is evaluated, so that a fault of the evaluation loses nothing; what
it scored comes later. Only which checkpoint is kept as the best depends on the file: where it is
missing or damaged, the next evaluations begin it anew.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path

from uniface_jax.errors import UserError
from uniface_jax.files.atomic import write_bytes
from uniface_jax.files.bounded_json import read_json

SCORES_FILE = "scores.json"


def read(workdir: Path) -> dict[int, float]:
    """Return the scores by step; empty where there is no file, or something else in it.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write(Path(folder), {2000: 0.91})
        ...     read(Path(folder))
        {2000: 0.91}
    """
    try:
        found = read_json(workdir / SCORES_FILE, "training writes it")
        scores = {int(step): float(score) for step, score in found.items()}
    except (UserError, AttributeError, ValueError, TypeError):
        return {}
    return {step: score for step, score in scores.items() if math.isfinite(score)}


def write(workdir: Path, scores: Mapping[int, float]) -> None:
    """Write the scores, atomically."""
    content = json.dumps({str(step): scores[step] for step in sorted(scores)}, indent=1) + "\n"
    write_bytes(workdir / SCORES_FILE, content.encode())
