"""Results of protocols that score all pairs: metrics, drawings, cells of a table."""

import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from uniface_jax.errors import UserError
from uniface_jax.evaluate.drawings import (
    BINS,
    PAIRS_SHOWN,
    Drawing,
    accept_counts,
    far_thresholds,
    picture,
    resamples,
    roc_line,
    rounded,
    tar_bars,
)
from uniface_jax.evaluate.features import FeatureSource
from uniface_jax.evaluate.protocols.base import SetResult, tar_cells
from uniface_jax.evaluate.sets.identity_folders import Identities
from uniface_jax.evaluate.sets.image_sets import ImageSet

if TYPE_CHECKING:  # JAX comes with it, which takes a second and is not needed for --help
    from uniface_jax.evaluate.all_pairs.curve import ScoreHistogram
    from uniface_jax.evaluate.all_pairs.engine import AllPairs
    from uniface_jax.evaluate.all_pairs.largest import HardPairs
    from uniface_jax.evaluate.all_pairs.tiles import LabeledFeatures


def features_and_record(
    source: FeatureSource, found: Identities
) -> tuple[np.ndarray, dict[str, Any]]:
    """Return the features of all images, and what metrics.json says of the data."""
    features = source.features(found.images)
    record = {
        "folder": str(found.images.root),
        "images": len(found.images),
        "identities": len(np.unique(found.labels)),
        **features.record,
    }
    if found.left_out:
        record["left_out"] = list(found.left_out)
    return features.values, record


class PairImages(NamedTuple):
    """Images that the rows of a result's pairs name, first and second, by kind of pair.

    The two kinds may differ: MegaFace's same pairs are of two probes, its different ones of a probe
    and a distractor.
    """

    same: tuple[ImageSet, ImageSet]
    different: tuple[ImageSet, ImageSet]

    @classmethod
    def of(cls, first: ImageSet, second: ImageSet | None = None) -> "PairImages":
        """Return the images of pairs within one set, or across two, for both kinds alike."""
        sides = (first, first if second is None else second)
        return cls(sides, sides)


def set_result(
    result: "AllPairs",
    record: Mapping[str, Any],
    features: Sequence["LabeledFeatures"],
    images: ImageSet,
    others: ImageSet | None = None,
) -> SetResult:
    """Return metrics, drawings and intervals of a result.

    features: of the one set, or of both. others: the second set's images, where there is one.
    """
    from uniface_jax.evaluate.all_pairs.engine import all_pairs_metrics
    from uniface_jax.evaluate.all_pairs.intervals import all_pairs_intervals

    metrics = all_pairs_metrics(result)
    drawings = drawings_of(result, metrics["tar_at_far"], PairImages.of(images, others))
    first, second = (*features, None)[:2]
    assert first is not None
    found = all_pairs_intervals(first, second, metrics)
    drawings["roc"] |= tar_bars(found.intervals)
    drawings["resamples"] = resamples(found.intervals, found.estimates, found.replicates)
    uncertainty = {"intervals": found.intervals, "thresholds": found.thresholds}
    return SetResult({**record, **metrics}, drawings, uncertainty)


def drawings_of(
    result: "AllPairs", tar_at_far: list[dict[str, Any]], images: PairImages
) -> dict[str, Drawing]:
    """Return `roc`, `counts`, `scores` and `pairs` of an engine's result."""
    histogram = result.histogram
    edges = _joined(histogram)
    thresholds = far_thresholds(tar_at_far)
    return {
        "roc": roc_line(result.curve),
        "counts": accept_counts(result.curve),
        "scores": {
            "edges": rounded(histogram.edges[edges]),
            # Beyond the last edge all bins are empty.
            "same": np.add.reduceat(histogram.same, edges[:-1]).tolist(),
            "different": np.add.reduceat(histogram.different, edges[:-1]).tolist(),
            "thresholds": {name: t for name, t in thresholds.items() if t is not None},
        },
        "pairs": {
            "same": _entries(result.hardest_same, images.same),
            "different": _entries(result.hardest_different, images.different),
        },
    }


def _entries(hard: "HardPairs", images: tuple[ImageSet, ImageSet]) -> list[dict[str, Any]]:
    """Return the score, and the label and picture of both sides, of each pair that is shown."""
    rows = zip(
        hard.scores[:PAIRS_SHOWN], hard.first[:PAIRS_SHOWN], hard.second[:PAIRS_SHOWN], strict=True
    )
    return [
        {
            "score": float(score),
            "sides": [
                {"label": of.label(int(row)), "picture": picture(of, int(row))}
                for of, row in zip(images, pair, strict=True)
            ],
        }
        for score, *pair in rows
    ]


def _joined(histogram: "ScoreHistogram") -> np.ndarray:
    """Return which edges are drawn: about BINS bins between lowest and highest score."""
    filled = np.flatnonzero(histogram.same + histogram.different)
    step = max(1, -(-(filled[-1] + 1 - filled[0]) // BINS))
    last = len(histogram.edges) - 1
    inner = np.arange(filled[0], filled[-1] + 1, step)
    return np.append(inner, min(last, int(inner[-1]) + step))


def cells(metrics: Mapping[str, Any]) -> dict[str, str]:
    """Return the cells of the table of a set of set_result."""
    lower, upper = metrics["auc"]["lower"], metrics["auc"]["upper"]
    return {
        "images": f"{metrics['images']:,}",
        "identities": f"{metrics['identities']:,}",
        "same pairs": f"{metrics['same']:,}",
        "different pairs": f"{metrics['different']:,}",
        "AUC": f"{lower:.5f}" if upper - lower < 1e-5 else f"{lower:.5f} … {upper:.5f}",
        **tar_cells(metrics),
    }


def bar(title: str) -> str | None:
    """Return the title of a progress bar on a terminal, None elsewhere."""
    return title if sys.stderr.isatty() else None


def named(error: UserError, folder: object, source: FeatureSource) -> UserError:
    """Return the engine's error with the data and the model in front."""
    return UserError(f"{folder} with {source.name}: {error}")
