"""Measures a trained run on people that it has seen and on people that it has not.

For comparisons of losses: the same faces, pairs and draws of people for every run, so that two
runs can be compared draw by draw.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from uniface_jax.evaluate.metrics.bootstrap import Resampling
from uniface_jax.evaluate.metrics.verification import (
    pair_distances,
    pair_scores,
    ten_fold_accuracy,
)
from uniface_jax.inference.extract import extract
from uniface_jax.inference.model import Model
from uniface_jax.inference.network import load_workdir
from uniface_jax.inspection import resampling
from uniface_jax.inspection.resampling import Pairs
from uniface_jax.inspection.similarity import dominance
from uniface_jax.inspection.workdir import inspect

FARS = (1e-2, 1e-3)
IMAGES = 512  # seen in training, that are compared with all prototypes
SEED = 0  # of the draws, the same for all runs


@dataclass(frozen=True, eq=False)
class Faces:
    """Faces to measure on.

    images: N encoded ones. pairs: the listed ones, in an order with both kinds in every tenth, and
    the images' people. crossed: int [M], the images of which all pairs are taken.
    """

    images: Sequence[bytes]
    pairs: Pairs
    crossed: np.ndarray

    @property
    def count(self) -> int:
        """Return the number of people K."""
        return int(self.pairs.people.max()) + 1


def measure(workdir: Path, seen: Faces, unseen: Faces, resamples: int) -> dict[str, Any]:
    """Measure the newest checkpoint of a run, for JSON.

    Args:
        workdir: of the run.
        seen: faces of people it was trained on.
        unseen: faces of others.
        resamples: draws of people, R.

    Returns:
        `draws`: lists of 1 + R numbers by name, the first of the people as they are: of people
        unseen `accuracy` (ten folds), `tar_at_FAR` (all pairs) and `error` (of one threshold for
        the listed pairs), and `error_seen`. `people`: the numbers of people `unseen` and `seen`,
        which are drawn. `prototypes`: of images seen against all prototypes,
        the rate of `equal_error` with one threshold for all, the share of images `rows` whose
        positive exceeds their own negatives, and for losses with b the `error` at the `learned`
        threshold b/s.

    Raises:
        UserError: the run cannot be read.
    """
    model = load_workdir(workdir)
    features = _features(model, unseen)
    drawing = Resampling(resamples, SEED)
    found = _of_list(features, unseen, resampling.draws(unseen.count, drawing))
    of_all = resampling.tars(
        features[unseen.crossed], unseen.pairs.people[unseen.crossed], FARS, drawing
    )
    for far, column in zip(FARS, of_all.T, strict=True):
        found[f"tar_at_{far:g}"] = column
    of_seen = _features(model, seen)
    scores = pair_scores(of_seen, seen.pairs.first, seen.pairs.second)
    found["error_seen"] = resampling.one_threshold_errors(
        scores, seen.pairs, resampling.draws(seen.count, drawing)
    )
    return {
        "draws": {name: values.tolist() for name, values in found.items()},
        "people": {"unseen": unseen.count, "seen": seen.count},
        "prototypes": _prototypes(workdir),
    }


def _features(model: Model, faces: Faces) -> np.ndarray:
    return extract(model.embed, faces.images, name=model.name)


def _of_list(features: np.ndarray, faces: Faces, drawn: np.ndarray) -> dict[str, np.ndarray]:
    """Return accuracy and error of the listed pairs by draw, float64 [R] each."""
    pairs = faces.pairs
    distances = pair_distances(features, pairs.first, pairs.second)
    folds = ten_fold_accuracy(distances, pairs.same)
    right = resampling.judged_rightly(distances, pairs.same, folds.thresholds)
    scores = pair_scores(features, pairs.first, pairs.second)
    return {
        "accuracy": resampling.accuracies(right, pairs, drawn),
        "error": resampling.one_threshold_errors(scores, pairs, drawn),
    }


def _prototypes(workdir: Path) -> dict[str, float]:
    """Return numbers of images seen against all prototypes; see `measure`."""
    facts = dominance(inspect(workdir, images=IMAGES).found)
    found = {"rows": facts["rows"], "equal_error": facts["equal_error"]["rate"]}
    if at := facts.get("at_threshold"):
        found["learned"] = at["threshold"]
        found["error"] = (at["positives_below"] + at["negatives_above"]) / 2
    return found
