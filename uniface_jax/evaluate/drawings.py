"""Drawings of a report as JSON: curves thinned to what a figure has room for, pictures.

Every function gives plain dictionaries, so that a report can be made of finished runs as well.
"""

import base64
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from uniface_jax.data.formats.images import encode_jpeg
from uniface_jax.errors import UserError
from uniface_jax.evaluate.metrics.identification import Searches, open_set
from uniface_jax.evaluate.metrics.roc import Roc
from uniface_jax.evaluate.sets.image_sets import ImageSet

MAX_POINTS = 800  # of one drawn line
BINS = 60
PAIRS_SHOWN = 8  # of each kind

Drawing = dict[str, Any]
Side = tuple[int, str]  # number of the image, label


def roc_line(curve: Roc) -> Drawing:
    """Return `far` and `tar`, the best TAR of each FAR, rising, and the numbers of pairs.

    Those are `same` and `different`. The line begins at the first FAR above 0 that the pairs can
    have, with the TAR of FAR 0.
    """
    best = _best_points(curve)
    return {
        "far": rounded(np.maximum(curve.far[best], 1 / curve.negatives)),
        "tar": rounded(curve.tar[best]),
        "same": curve.positives,
        "different": curve.negatives,
    }


def accept_counts(curve: Roc) -> Drawing:
    """Return `thresholds`, falling, and how many `same` and `different` pairs reach each of them.

    They are those of the points of roc_line, but for the one at which no pair is accepted.
    """
    best = _best_points(curve)
    best = best[np.isfinite(curve.thresholds[best])]
    return {
        "thresholds": curve.thresholds[best].tolist(),
        "same": curve.true_accepts[best].tolist(),
        "different": curve.false_accepts[best].tolist(),
    }


def _best_points(curve: Roc) -> np.ndarray:
    """Return the points of the best TAR of each FAR, thinned: their numbers, rising."""
    best = np.append(np.flatnonzero(np.diff(curve.false_accepts)), len(curve.thresholds) - 1)
    chosen: np.ndarray = best[thinned(len(best))]
    return chosen


def tar_bars(intervals: Mapping[str, Any]) -> Drawing:
    """Return `intervals` for a roc_line: `far`, `lower` and `upper` of TAR at each target.

    intervals: with `tar_at_far`, as thresholds.tar_uncertainty gives it; those of rates that the
    set is too small for are left out, and {} is returned where it is so for all.
    """
    known = [entry for entry in intervals["tar_at_far"] if "note" not in entry]
    if not known:
        return {}
    return {
        "intervals": {
            "far": [entry["far"] for entry in known],
            "lower": rounded(np.array([entry["strict"]["tar"]["lower"] for entry in known])),
            "upper": rounded(np.array([entry["strict"]["tar"]["upper"] for entry in known])),
        }
    }


def histogram(
    same: np.ndarray, different: np.ndarray, thresholds: Mapping[str, float | None]
) -> Drawing:
    """Return counts of the scores of same and different pairs in common bins.

    thresholds: named scores, to be marked; None are left out.
    """
    low = min(float(kind.min()) for kind in (same, different) if len(kind))
    high = max(float(kind.max()) for kind in (same, different) if len(kind))
    edges = np.linspace(low, high + 1e-9, BINS + 1)
    return {
        "edges": rounded(edges),
        "same": np.histogram(same, edges)[0].tolist(),
        "different": np.histogram(different, edges)[0].tolist(),
        "thresholds": {name: t for name, t in thresholds.items() if t is not None},
    }


def far_thresholds(tar_at_far: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
    """Return the strict thresholds of resolvable rates of a verification.tar_summary."""
    return {
        f"FAR ≤ {entry['far']:g}": entry["strict"]["threshold"]
        for entry in tar_at_far
        if entry["resolvable"]
    }


def hardest(scores: np.ndarray, same: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the numbers of the same pairs of lowest and different pairs of highest score [P]."""

    def lowest(chosen: np.ndarray, values: np.ndarray) -> np.ndarray:
        where = np.flatnonzero(chosen)
        few = values[where]
        if len(few) > PAIRS_SHOWN:
            part = np.argpartition(few, PAIRS_SHOWN)[:PAIRS_SHOWN]
            where, few = where[part], few[part]
        return where[np.argsort(few, kind="stable")]

    return lowest(same, scores), lowest(~same, -scores)


def hard_pairs(
    scores: np.ndarray,
    same: np.ndarray,
    sides: Callable[[int], tuple[Side, Side]],
    images: ImageSet | None,
) -> Drawing:
    """Return the hardest pairs, `same` and `different`: `score`, and `sides` of label, picture.

    A picture is null where there is none. sides: maps the number of a pair to both of its sides,
    with numbers of images in `images`.
    """

    def entry(pair: int) -> dict[str, Any]:
        return {
            "score": float(scores[pair]),
            "sides": [
                {"label": label, "picture": picture(images, image)} for image, label in sides(pair)
            ],
        }

    low, high = hardest(scores, same)
    return {
        "same": [entry(int(pair)) for pair in low],
        "different": [entry(int(pair)) for pair in high],
    }


def picture(images: ImageSet | None, index: int) -> str | None:
    """Return an image as a data URL of a JPEG; None where it cannot be had (any more)."""
    try:
        pixels = None if images is None else images.pixels(index)
    except UserError:
        return None  # features of images that are elsewhere: the numbers stand without pictures
    if pixels is None:
        return None
    return "data:image/jpeg;base64," + base64.b64encode(encode_jpeg(pixels, 90)).decode()


def thinned(count: int) -> np.ndarray:
    """Return at most MAX_POINTS of 0 … count - 1: all of the first, the later the sparser."""
    if count <= MAX_POINTS:
        return np.arange(count)
    spread = np.geomspace(1, count, MAX_POINTS).astype(int) - 1
    return np.unique(np.append(spread, count - 1))


def rounded(values: np.ndarray) -> list[float]:
    """Return the values with six significant digits, which is more than a figure shows."""
    return [float(f"{value:.6g}") for value in values]


def cmc_line(found: Searches) -> Drawing:
    """Return `ranks` k and `rates`, the share of mated probes with the mate among the first k."""
    counts = np.bincount(found.ranks, minlength=found.gallery + 1)[1:]
    rates = np.cumsum(counts) / max(1, len(found.ranks))
    shown = thinned(len(rates))
    return {"ranks": (shown + 1).tolist(), "rates": rounded(rates[shown])}


def open_set_line(found: Searches) -> Drawing:
    """Return `fpir` and `tpir`: the largest TPIR at each FPIR, from 1 / unknown probes on."""
    shown = thinned(len(found.best_scores)) + 1
    targets = shown / len(found.best_scores)
    points = open_set(found, targets.tolist())
    return {"fpir": rounded(targets), "tpir": rounded(np.array([p["tpir"] for p in points]))}


def resamples(
    record: Mapping[str, Any],
    estimates: Mapping[str, float],
    replicates: Mapping[str, np.ndarray],
) -> Drawing:
    """Return what two models of the same data are compared by: `values` of each resample, by name.

    `units`, `count`, `resamples` and `seed` of thresholds.resampling_record say what was drawn.
    estimates: the numbers of the whole set. replicates: float [B] each; nan becomes null.
    """
    drawn = {key: record[key] for key in ("units", "count", "resamples", "seed")}
    values = {
        name: [None if np.isnan(value) else float(f"{value:.6g}") for value in of_name]
        for name, of_name in replicates.items()
    }
    return {**drawn, "estimates": {name: estimates[name] for name in values}, "values": values}


def open_set_det_line(found: Searches) -> Drawing:
    """Return `fpir` and `fnir` = 1 - TPIR, the least share of mated probes that are missed."""
    line = open_set_line(found)
    return {"fpir": line["fpir"], "fnir": rounded(1 - np.array(line["tpir"]))}
