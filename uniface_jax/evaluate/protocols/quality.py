"""Protocol `quality`: errors of verification as the pairs of lowest quality are rejected."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from uniface_jax.errors import UserError
from uniface_jax.evaluate.arguments import PartNames, Parts
from uniface_jax.evaluate.drawings import Drawing, rounded
from uniface_jax.evaluate.features import FeatureSource
from uniface_jax.evaluate.metrics.quality import FMRS, REJECTED, error_versus_reject
from uniface_jax.evaluate.metrics.verification import pair_scores
from uniface_jax.evaluate.protocols.base import Options, Protocol, Results, SetResult
from uniface_jax.evaluate.sets.pair_sets import OpenedPairs, open_pair_sets
from uniface_jax.evaluate.sets.quality_scores import detector_scores, table_scores

NORM, DETECTOR, LEARNED = "norm", "detector", "learned"
_SHOWN = 4  # the step of REJECTED that a table shows beside the first: 20 %


def run(parts: Parts, source: FeatureSource, options: Options) -> Results:
    """Evaluate every set of pairs by one score; files are read before anything is embedded.

    The part `score` is the length of the feature f(x) + f(mirror x), by default, what the model's
    quality head says of it, the detector's score, or a table of scores; `root` is the folder of the
    lists' images.
    """
    if not parts.paths:
        raise UserError("--data: quality: no pairs, only score= or root=")
    by = parts.named.get("score")
    name = NORM if by is None else str(by)
    if name == LEARNED and source.quality is None:
        raise UserError(
            f"--data: quality: score={LEARNED}: {source.name} has no quality head; only a workdir "
            "that config.quality.weight has trained one in"
        )
    opened = open_pair_sets(parts.paths, parts.named.get("root"))
    given = {key: _given(name, found) for key, found in opened.items()}
    return {key: _result(found, given[key], name, source, options) for key, found in opened.items()}


def _given(name: str, opened: OpenedPairs) -> np.ndarray | None:
    """Return the quality of each image, where it does not come with the features."""
    if name in (NORM, LEARNED):
        return None
    if name == DETECTOR:
        return detector_scores(opened)
    return table_scores(Path(name), opened)


def _result(
    opened: OpenedPairs,
    quality: np.ndarray | None,
    name: str,
    source: FeatureSource,
    options: Options,
) -> SetResult:
    pairs = opened.pairs
    listed = np.stack([pairs.first, pairs.second], axis=1).ravel()
    found = source.features(opened.images, listed=listed)
    if quality is None and name == LEARNED:
        assert source.quality is not None
        quality = source.quality(found.values)
    elif quality is None:
        quality = np.linalg.norm(np.asarray(found.values, np.float64), axis=1)
    try:
        scores = pair_scores(found.values, pairs.first, pairs.second)
    except UserError as e:
        raise UserError(f"{opened.file} with {source.name}: {e}") from e
    worse = np.minimum(quality[pairs.first], quality[pairs.second])
    errors = error_versus_reject(scores, pairs.same, worse, options.fars_or(FMRS))
    metrics = {
        "file": str(opened.file),
        "images": len(opened.images),
        **found.record,
        "score": name,
        "pairs": len(pairs),
        "same": int(np.count_nonzero(pairs.same)),
        "different": int(np.count_nonzero(~pairs.same)),
        "rejected": rounded(REJECTED),
        "error_versus_reject": errors,
    }
    return SetResult(metrics, {"reject": _lines(errors)})


def _lines(errors: list[dict[str, Any]]) -> Drawing:
    """Return `lines` of `rejected` and `fnmr` by FMR, as far as both kinds of pairs are left."""
    lines = {}
    for entry in errors:
        fnmr = entry["recomputed"]["fnmr"]
        there = [i for i, error in enumerate(fnmr) if error is not None]
        if there:
            lines[f"FMR {entry['fmr']:g}"] = {
                "rejected": rounded(REJECTED[there]),
                "fnmr": rounded(np.array([fnmr[i] for i in there])),
            }
    return {"lines": lines}


def row(metrics: Mapping[str, Any]) -> dict[str, str]:
    """Return the cells of the table: FNMR of all pairs, of the better 80 %, and the area."""
    cells = {"pairs": f"{metrics['pairs']:,}", "score": metrics["score"]}
    for entry in metrics["error_versus_reject"]:
        fnmr, area = entry["recomputed"]["fnmr"], entry["recomputed"]["area"]
        shown = f"{_percent(fnmr[0])} → {_percent(fnmr[_SHOWN])}"
        head = f"FNMR@FMR≈{entry['fmr']:g}, 0 → 20 %"
        cells[head] = shown if entry["resolvable"] else f"({shown})"
        cells[f"area@FMR≈{entry['fmr']:g}"] = "undefined" if area is None else f"{area:.4f}"
    return cells


def _percent(rate: float | None) -> str:
    return "undefined" if rate is None else f"{rate:.2%}"


QUALITY = Protocol(
    "Errors versus rejected pairs",
    PartNames(
        "sets of pairs, as verification and pairs take them",
        {
            "score": f"{NORM} of the features, {LEARNED} with the network, {DETECTOR}, or FILE.csv "
            "of lines image,score",
            "root": "FOLDER of a list's images",
        },
    ),
    run,
    row,
)
