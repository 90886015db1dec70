"""Metrics of IJB-B and IJB-C, 1:1; those of 1:N are metrics/identification.py."""

from collections.abc import Sequence
from typing import Any

from uniface_jax.evaluate.metrics.roc import Roc, auc, tar_at_far
from uniface_jax.evaluate.metrics.verification import tar_summary

FARS = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)


def one_to_one_metrics(curve: Roc, fars: Sequence[float] = FARS) -> dict[str, Any]:
    """Return counts, AUC and TAR at FAR 1e-6 … 1e-1, for JSON, of the pairs' ROC.

    `tar_at_far` has both readings, see verification.tar_summary; `nearest` is insightface's.
    """
    return {
        "pairs": curve.positives + curve.negatives,
        "same": curve.positives,
        "different": curve.negatives,
        "auc": auc(curve),
        "tar_at_far": tar_summary(tar_at_far(curve, fars)),
    }
