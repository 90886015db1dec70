"""What the protocols that score all pairs have in common: metrics, drawings, cells of a table."""

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from uniface_jax.errors import UserError
from uniface_jax.evaluate.drawings import (
    BINS,
    Drawing,
    far_thresholds,
    picture,
    roc_line,
    rounded,
)
from uniface_jax.evaluate.features import FeatureSource
from uniface_jax.evaluate.protocols.base import SetResult, tar_cells
from uniface_jax.evaluate.sets.identity_folders import Identities
from uniface_jax.evaluate.sets.image_sets import ImageSet

if TYPE_CHECKING:  # JAX comes with it, which takes a second and is not needed for --help
    from uniface_jax.evaluate.all_pairs.curve import ScoreHistogram
    from uniface_jax.evaluate.all_pairs.engine import AllPairs

SHOWN = 8  # pairs of each kind


def embedded(source: FeatureSource, found: Identities) -> tuple[np.ndarray, dict[str, Any]]:
    """The features of all images, and what metrics.json says of the data."""
    features = source.features(found.images)
    record = {
        "folder": str(found.images.root),
        "images": len(found.images),
        "identities": len(np.unique(found.labels)),
        **features.record,
    }
    return features.values, record


def set_result(
    result: "AllPairs",
    record: Mapping[str, Any],
    images: ImageSet,
    others: ImageSet | None = None,
) -> SetResult:
    """Metrics and drawings of an engine's result. others: the second set, where there is one."""
    from uniface_jax.evaluate.all_pairs.engine import all_pairs_metrics

    metrics = all_pairs_metrics(result)
    return SetResult(
        {**record, **metrics}, drawings_of(result, metrics["tar_at_far"], images, others)
    )


def drawings_of(
    result: "AllPairs",
    tar_at_far: list[dict[str, Any]],
    images: ImageSet,
    others: ImageSet | None = None,
) -> dict[str, Drawing]:
    """`roc`, `scores` and `pairs` of an engine's result."""
    second_images = images if others is None else others

    def entries(hard: Any) -> list[dict[str, Any]]:
        return [
            {
                "score": float(score),
                "sides": [side(images, int(first)), side(second_images, int(second))],
            }
            for score, first, second in zip(
                hard.scores[:SHOWN], hard.first[:SHOWN], hard.second[:SHOWN], strict=True
            )
        ]

    def side(of: ImageSet, row: int) -> dict[str, Any]:
        return {"label": of.label(row), "picture": picture(of, row)}

    histogram = result.histogram
    edges = _joined(histogram)
    thresholds = far_thresholds(tar_at_far)
    return {
        "roc": roc_line(result.curve),
        "scores": {
            "edges": rounded(histogram.edges[edges]),
            # Beyond the last edge all bins are empty.
            "same": np.add.reduceat(histogram.same, edges[:-1]).tolist(),
            "different": np.add.reduceat(histogram.different, edges[:-1]).tolist(),
            "thresholds": {name: t for name, t in thresholds.items() if t is not None},
        },
        "pairs": {
            "same": entries(result.hardest_same),
            "different": entries(result.hardest_different),
        },
    }


def _joined(histogram: "ScoreHistogram") -> np.ndarray:
    """Which of its edges are drawn: about BINS bins between the lowest and the highest score."""
    filled = np.flatnonzero(histogram.same + histogram.different)
    step = max(1, -(-(filled[-1] + 1 - filled[0]) // BINS))
    last = len(histogram.edges) - 1
    inner = np.arange(filled[0], filled[-1] + 1, step)
    return np.append(inner, min(last, int(inner[-1]) + step))


def cells(metrics: Mapping[str, Any]) -> dict[str, str]:
    """Cells of the table of a set of set_result."""
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
    """The title of an engine's progress bar on a terminal, None elsewhere."""
    return title if sys.stderr.isatty() else None


def named(error: UserError, folder: object, source: FeatureSource) -> UserError:
    """The engine's error with the data and the model in front."""
    return UserError(f"{folder} with {source.name}: {error}")
