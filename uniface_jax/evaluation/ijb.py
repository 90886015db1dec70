"""IJB-B and IJB-C, 1:1: features of images become features of templates, and pairs are scored.

The aggregation is insightface's, in the same order of float operations, so that its numbers come
out to the last digit. Formats: ijb_meta.py.
"""

from pathlib import Path
from typing import Any

import numpy as np

from uniface_jax.errors import UserError
from uniface_jax.evaluation.roc import auc, roc, tar_at_far
from uniface_jax.evaluation.verification import normalise, tar_summary

FARS = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)


def image_features(
    features: np.ndarray, mirrored: np.ndarray | None, detector_scores: np.ndarray
) -> np.ndarray:
    """(f(x) + f(mirror x)) times the detector's score, norm kept: [N, D] in the features' dtype.

    features: [N, D], the mirror sum already where `mirrored` is None. detector_scores: [N].
    """
    both = features if mirrored is None else features + mirrored
    return both * detector_scores.astype(both.dtype)[:, None]


def template_features(
    features: np.ndarray, templates: np.ndarray, media: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(template ids int [T] rising, their features float64 [T, D] of length 1).

    features: [N, D] of image_features. templates, media: int [N], the ids of each image's template
    and medium. A medium's feature is the mean over its images in that template, a template's the
    sum over its media, L2-normalised.

    Raises UserError naming the first image whose feature is not finite, and the first template
    whose sum is zero.
    """
    if not len(features) == len(templates) == len(media) or features.ndim != 2:
        raise ValueError(
            f"features {features.shape}, templates {templates.shape}, media {media.shape}; "
            "expected [N, D], [N], [N]"
        )
    finite = np.isfinite(features).all(axis=1)
    if not finite.all():
        raise UserError(
            f"the feature of image {int(np.argmin(finite))} is not finite "
            f"({int((~finite).sum())} of {len(features)} are not)"
        )
    order = np.lexsort((media, templates))  # stable: a medium's images keep their order
    ids, starts = np.unique(templates[order], return_index=True)
    sums = np.empty((len(ids), features.shape[1]))
    for row, images in enumerate(np.split(order, starts[1:])):
        new_medium = np.flatnonzero(np.diff(media[images])) + 1
        means = [features[medium].mean(axis=0) for medium in np.split(images, new_medium)]
        sums[row] = np.sum(means, axis=0)
    return ids, normalise(sums, "template", ids)


def template_rows(template_ids: np.ndarray, wanted: np.ndarray, file: Path | str) -> np.ndarray:
    """The rows, int [P], of the templates `wanted` [P] among the rising ids [T].

    Raises UserError where one is missing: `file` holds entry i of `wanted` in its line i + 1.
    """
    rows = np.minimum(np.searchsorted(template_ids, wanted), len(template_ids) - 1)
    missing = template_ids[rows] != wanted
    if missing.any():
        line = int(np.argmax(missing))
        raise UserError(
            f"{file}: line {line + 1}: template {int(wanted[line])} has no image "
            f"({int(missing.sum())} of {len(wanted)} entries name such templates)"
        )
    return rows


def one_to_one_metrics(scores: np.ndarray, same: np.ndarray) -> dict[str, Any]:
    """Counts, AUC and TAR at FAR 1e-6 … 1e-1, for JSON, of the pairs' cosines [P] and same [P].

    `tar_at_far` has both readings, see verification.tar_summary; `nearest` is insightface's.
    Raises what roc raises.
    """
    curve = roc(scores, same)
    return {
        "pairs": len(scores),
        "same": curve.positives,
        "different": curve.negatives,
        "auc": auc(curve),
        "tar_at_far": tar_summary(tar_at_far(curve, FARS)),
    }
