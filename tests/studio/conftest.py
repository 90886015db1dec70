"""An evaluation of ten people whose scores overlap, and a gallery with names from elsewhere."""

import numpy as np
import pytest

from uniface_jax.data.formats.images import encode_png
from uniface_jax.evaluate.drawings import accept_counts, histogram, roc_line
from uniface_jax.evaluate.metrics.roc import roc
from uniface_jax.evaluate.report.results import Run

pytest.importorskip("fastapi", reason="needs the extra serve")

HOSTILE = "<img src=x onerror=alert(1)>\u202egnp.exe"


@pytest.fixture(scope="package")
def scores():
    """Scores of 400 pairs, and which are same ones."""
    random = np.random.default_rng(3)
    same = np.arange(400) % 4 == 0
    return np.round(random.normal(np.where(same, 0.5, 0.1), 0.12), 6), same


@pytest.fixture(scope="package")
def run(scores):
    """A finished evaluation, as reading.read gives it."""
    values, same = scores
    curve = roc(values, same)
    drawings = {
        "roc": roc_line(curve),
        "counts": accept_counts(curve),
        "scores": histogram(values[same], values[~same], {"FAR ≤ 0.01": 0.4}),
        "pairs": {"same": [pair(0.1)], "different": [pair(0.9)]},
    }
    metrics = {
        "thresholds": [
            {"far": 0.01, "far_interval": {"lower": 0.002, "upper": 0.03}},
            {"far": 1e-5, "note": "too few pairs for FAR 1e-05"},
        ]
    }
    return Run(
        "net",
        {"protocols": {"pairs": {"sets": {"faces": metrics}}}},
        {"pairs": {"faces": drawings}},
    )


def pair(score: float):
    """Return an entry of the hardest pairs, one of whose names is hostile."""
    picture = "data:image/jpeg;base64,/9j/4AAQ"
    sides = [{"label": HOSTILE, "picture": picture}, {"label": "b.jpg", "picture": None}]
    return {"score": score, "sides": sides}


def noise(height: int, width: int, seed: int = 0) -> bytes:
    """Return a PNG without a face."""
    random = np.random.default_rng(seed)
    return encode_png(random.integers(0, 256, (height, width, 3), dtype=np.uint8))
