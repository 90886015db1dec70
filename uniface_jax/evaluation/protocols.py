"""The evaluation protocols by name, each from a model and data to metrics and figures.

A protocol is a function (model, data, output, options) -> metrics: `data` are paths that the user
gave, figures go to the folder `output`, and the metrics are ready for JSON.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from uniface_jax.data.pairs import PairSet
from uniface_jax.errors import UserError
from uniface_jax.evaluation import plots
from uniface_jax.evaluation.embed import Model, extract
from uniface_jax.evaluation.pair_sets import find_pair_files, read_pair_sets
from uniface_jax.evaluation.roc import Roc, roc
from uniface_jax.evaluation.verification import FARS, pair_scores, verification_metrics

MAX_LINES = 8  # curves in one figure


@dataclass(frozen=True)
class Options:
    """batch_size: images embedded at a time. fars: targets of TAR at FAR, each in (0, 1]."""

    batch_size: int = 64
    fars: Sequence[float] = FARS


Protocol = Callable[[Model, Sequence[Path], Path, Options], dict[str, Any]]


def verification(
    model: Model, data: Sequence[Path], output: Path, options: Options
) -> dict[str, Any]:
    """Pairs of .bin files: AUC, ten-fold accuracy, TAR at FAR of every file in `data`.

    data: .bin files, or folders with some. Returns {"sets": {name: metrics}}: those of
    verification_metrics, and `file`, `sha256` and `images`. Figures: roc.png and det.png with all
    sets, NAME_scores.png of each.

    Raises UserError naming the file, before anything is embedded where the file's structure is at
    fault.
    """
    pair_sets = read_pair_sets(data)
    files = find_pair_files(data)
    sets: dict[str, Any] = {}
    curves: dict[str, Roc] = {}
    for name, pairs in pair_sets.items():
        file = files[name]
        features = extract(model.embed, pairs.images, name=str(file), batch_size=options.batch_size)
        try:
            metrics = verification_metrics(features, pairs, options.fars)
        except UserError as e:
            raise UserError(f"{file} with {model.name}: {e}") from e
        with file.open("rb") as opened:
            digest = hashlib.file_digest(opened, "sha256").hexdigest()
        sets[name] = {"file": str(file), "sha256": digest, "images": len(pairs.images), **metrics}
        scores = pair_scores(features, pairs.first, pairs.second)
        curves[name] = roc(scores, pairs.same)
        _plot_scores(output / f"{name}_scores.png", model.name, scores, pairs, metrics)
    shown = dict(list(curves.items())[:MAX_LINES])
    plots.plot_roc(output / "roc.png", shown, f"{model.name}: verification")
    plots.plot_det(output / "det.png", shown, f"{model.name}: verification, errors")
    return {"sets": sets}


PROTOCOLS: dict[str, Protocol] = {"verification": verification}


def _plot_scores(
    path: Path, model_name: str, scores: np.ndarray, pairs: PairSet, metrics: dict[str, Any]
) -> None:
    # Squared distances of unit features are 2 - 2 cos.
    thresholds = {"10-fold accuracy": 1 - metrics["accuracy"]["threshold"] / 2}
    for entry in metrics["tar_at_far"]:
        if entry["resolvable"] and entry["strict"]["threshold"] is not None:
            thresholds[f"FAR ≤ {entry['far']:g}"] = entry["strict"]["threshold"]
    accuracy = metrics["accuracy"]["mean"]
    title = f"{model_name} on {pairs.name}: AUC {metrics['auc']:.4f}, accuracy {accuracy:.2%}"
    plots.plot_scores(path, scores, pairs.same, thresholds, title)
