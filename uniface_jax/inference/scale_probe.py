"""Telling the scale of a network's pixels from faces alone, without anybody's labels.

A network that is fed at a scale it was not trained at gives all faces nearly one feature: its
biases outweigh what is too small, or saturate what is too large. So the right scale is the one at
which features of different images point in different directions. Who is who is not asked, and no
score that an evaluation reports is computed.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

MAX_FACES = 32
MIN_FACES = 8  # of fewer, turned and mirrored ones are taken too
MIN_RATIO = 1.5  # of both spreads: that of networks is about 10, of a random projection 3
SAME_COSINE = 0.999
SCALES = ("unit", "raw")

FeaturesAt = Callable[[np.ndarray, str], np.ndarray]


@dataclass(frozen=True)
class ScaleChoice:
    """The scale that faces tell, None where they do not; spreads, 0..2, by scale; faces looked at.

    A spread is 1 - the mean cosine of features of two different images.
    """

    scale: str | None
    spreads: dict[str, float]
    faces: int

    def describe(self) -> str:
        """Return the numbers that decided, or did not."""
        shown = ", ".join(f"{1 - spread:.3f} at {s}" for s, spread in self.spreads.items())
        return f"mean cosine of different images {shown}, over {self.faces} images"


def some_of(count: int) -> list[int]:
    """Return the numbers of at most MAX_FACES of `count` faces, evenly spread.

    >>> some_of(3), len(some_of(1000)), some_of(1000)[-1]
    ([0, 1, 2], 32, 968)
    """
    step = max(1, count / MAX_FACES)
    return [int(i * step) for i in range(min(count, MAX_FACES))]


def choose_scale(features_at: FeaturesAt, faces: np.ndarray) -> ScaleChoice:
    """Choose the scale at which features of faces differ most.

    Args:
        features_at: maps images uint8 RGB [N, 112, 112, 3] and a scale of SCALES to features.
        faces: aligned ones, uint8 RGB [N, 112, 112, 3].

    Returns:
        A choice without a scale where both spreads are within MIN_RATIO of each other. Where it
        does not matter, since features are the same at both, or of no use at either (zero or not
        finite), it is "unit".
    """
    images = np.unique(_with_turned(faces), axis=0)
    units = {scale: _unit(features_at(images, scale)) for scale in SCALES}
    spreads = {scale: _spread(found) for scale, found in units.items()}
    unit, raw = spreads["unit"], spreads["raw"]
    usable = [np.isfinite(found).all() for found in units.values()]
    scale = None
    if not any(usable) or (units["unit"] * units["raw"]).sum(1).min() > SAME_COSINE:
        scale = "unit"
    elif all(usable) and max(unit, raw) > MIN_RATIO * min(unit, raw):
        scale = "unit" if unit > raw else "raw"
    return ScaleChoice(scale, spreads, len(images))


def _with_turned(faces: np.ndarray) -> np.ndarray:
    """Return few faces in all eight positions of a square: images that differ as faces do."""
    if len(faces) >= MIN_FACES:
        return faces
    turned = [np.rot90(faces, k, (1, 2)) for k in range(4)]
    return np.concatenate([*turned, *(images[:, :, ::-1] for images in turned)])


def _unit(features: np.ndarray) -> np.ndarray:
    features = np.asarray(features, np.float64)
    with np.errstate(all="ignore"):  # nan decides nothing
        lengths = np.linalg.norm(features, axis=1, keepdims=True)
        units: np.ndarray = features / lengths
        return units


def _spread(units: np.ndarray) -> float:
    """Return 1 - the mean cosine of all pairs of rows; 0 where there is one row."""
    count = len(units)
    total = float((units.sum(0) ** 2).sum())  # of all pairs, and each row with itself
    return 1 - (total - count) / max(count * (count - 1), 1)
