"""Templates of IJB-B and IJB-C: features of images become features of templates.

The aggregation is insightface's, in the same order of float operations, so that its numbers come
out to the last digit. Formats: images.py.
"""

from pathlib import Path

import numpy as np

from uniface_jax.errors import UserError
from uniface_jax.evaluate.metrics.verification import normalize

_BLOCK_IMAGES = 1 << 14  # whose features are in memory at a time; more for a larger template


def image_features(
    features: np.ndarray, mirrored: np.ndarray | None, detector_scores: np.ndarray
) -> np.ndarray:
    """Return the mirror sum times the detector's score, norm kept: [N, D], of the same dtype.

    features: [N, D], the mirror sum already where `mirrored` is None. detector_scores: [N].
    """
    both: np.ndarray = features if mirrored is None else features + mirrored
    weighted: np.ndarray = both * detector_scores.astype(both.dtype)[:, None]
    return weighted


def template_features(
    features: np.ndarray,
    templates: np.ndarray,
    media: np.ndarray,
    detector_scores: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Return template ids int [T], rising, and their features float64 [T, D] of length 1.

    features: [N, D] of image_features, or, with detector_scores [N], what it takes; perhaps
    memory-mapped: they are read a block of templates at a time. templates, media: int [N], the ids
    of each image's template and medium. A medium's feature is the mean over its images in that
    template, a template's the sum over its media, L2-normalized.

    Raises UserError naming the first image whose feature is not finite, and the first template
    whose sum is zero.
    """
    if not len(features) == len(templates) == len(media) or features.ndim != 2:
        raise ValueError(
            f"features {features.shape}, templates {templates.shape}, media {media.shape}; "
            "expected [N, D], [N], [N]"
        )
    order = np.lexsort((media, templates))  # stable: a medium's images keep their order
    ids, starts = np.unique(templates[order], return_index=True)
    sums = np.empty((len(ids), features.shape[1]))
    ends = np.append(starts[1:], len(order))
    first = 0
    while first < len(ids):
        last = max(
            first + 1, int(np.searchsorted(ends, starts[first] + _BLOCK_IMAGES, side="right"))
        )
        images = order[starts[first] : ends[last - 1]]
        block = np.asarray(features[images])
        _check_finite(block, images)
        if detector_scores is not None:
            block = image_features(block, None, detector_scores[images])
        keys = np.stack([templates[images], media[images]])
        new = np.append(True, (np.diff(keys) != 0).any(axis=0))
        media_starts = np.flatnonzero(new)
        counts = np.diff(np.append(media_starts, len(images)))
        means = _segment_sums(block, media_starts) / counts.astype(block.dtype)[:, None]
        template_starts = np.flatnonzero(np.append(True, np.diff(keys[0, media_starts]) != 0))
        sums[first:last] = _segment_sums(means, template_starts)
        first = last
    return ids, normalize(sums, "template", ids)


def _check_finite(block: np.ndarray, images: np.ndarray) -> None:
    bad = ~np.isfinite(block).all(axis=1)
    if bad.any():
        raise UserError(
            f"the feature of image {int(images[bad].min())} is not finite "
            f"({int(bad.sum())} of the {len(block)} looked at with it are not)"
        )


def _segment_sums(rows: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Return the sums of rows[starts[i] : starts[i + 1]], [S, D]; none is empty.

    A row after another is added to all segments that have one more, the longest segments first:
    the order of numpy's sum of one segment, so that no digit differs from a loop over them.
    (np.add.reduceat sums by pairs, and takes five times as long.)
    """
    lengths = np.diff(np.append(starts, len(rows)))
    longest = np.argsort(-lengths, kind="stable")
    begins, falling = starts[longest], -lengths[longest]
    sums: np.ndarray = rows[begins]
    for row in range(1, -int(falling[0])):
        active = int(np.searchsorted(falling, -row))
        sums[:active] += rows[begins[:active] + row]
    found = np.empty_like(sums)
    found[longest] = sums
    return found


def template_rows(
    template_ids: np.ndarray,
    wanted: np.ndarray,
    file: Path | str,
    lines: np.ndarray | None = None,
) -> np.ndarray:
    """Return the rows, int [P], of the templates `wanted` [P] among the rising ids [T].

    Raises UserError where one is missing: `file` holds entry i of `wanted` in its line lines[i],
    or i + 1.
    """
    rows = np.minimum(np.searchsorted(template_ids, wanted), len(template_ids) - 1)
    missing = template_ids[rows] != wanted
    if missing.any():
        entry = int(np.argmax(missing))
        line = entry + 1 if lines is None else int(lines[entry])
        raise UserError(
            f"{file}: line {line}: template {int(wanted[entry])} has no image "
            f"({int(missing.sum())} of {len(wanted)} entries name such templates)"
        )
    return rows
