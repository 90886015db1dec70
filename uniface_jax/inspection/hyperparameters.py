"""Unified threshold as a function of UCE's margin, λ, r and s, for given similarities."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from uniface_jax import losses
from uniface_jax.inspection.curves import Curves, loss_curves
from uniface_jax.inspection.similarity import EDGES, Similarities

DEFAULTS = {"margin": 0.4, "negative_weight": 1.0, "sampling_rate": 1.0, "scale": 64.0}
SWEEPS: Mapping[str, np.ndarray] = {
    "margin": np.linspace(0, 0.8, 33),
    "negative_weight": np.geomspace(0.1, 2, 33),
    "sampling_rate": np.geomspace(0.05, 1, 33),
    "scale": np.geomspace(8, 128, 33),
}
CURVE_VALUES: Mapping[str, tuple[float, ...]] = {
    "margin": (0.0, 0.2, 0.4),
    "negative_weight": (0.25, 0.5, 1.0),
    "sampling_rate": (0.1, 0.4, 1.0),
    "scale": (16.0, 32.0, 64.0),
}
_HALVINGS = 60  # of the interval in which b is searched: to float64's precision


def unified_bias(
    positive: np.ndarray,
    negative: np.ndarray,
    per_sample: np.ndarray,
    hyperparameters: Mapping[str, float] = DEFAULTS,
) -> float:
    """Return the b at which the gradient of UCE with respect to b is zero.

    There mean σ(b - s (cos_iy - m)) = λ r sum_k per_sample_k σ(s negative_k - b), with the mean
    over samples. The clamp of z at ±s is left out.

    Args:
        positive: [N] cosines of samples with their own class.
        negative: [K] cosines with other classes.
        per_sample: [K], how many of each of these a sample has on average.
        hyperparameters: the keys of DEFAULTS: scale s > 0, margin m >= 0, negative_weight λ > 0,
            sampling_rate r in (0, 1].
    """
    scale, margin = hyperparameters["scale"], hyperparameters["margin"]
    weight = hyperparameters["negative_weight"] * hyperparameters["sampling_rate"]
    low, high = -2 * scale - 50.0, 2 * scale + 50.0
    for _ in range(_HALVINGS):
        b = (low + high) / 2
        raised_by_positives = np.mean(_sigmoid(b - scale * (positive - margin)))
        raised_by_negatives = np.sum(per_sample * _sigmoid(scale * negative - b))
        if raised_by_positives > weight * raised_by_negatives:
            high = b
        else:
            low = b
    return (low + high) / 2


def threshold_sweeps(
    found: Similarities, defaults: Mapping[str, float] = DEFAULTS
) -> dict[str, dict[str, list[float]]]:
    """Return, for each hyperparameter, its `values` and the `thresholds` b/s that follow, for JSON.

    The others are at `defaults`.
    """
    return {
        key: {
            "values": [float(value) for value in values],
            "thresholds": [threshold(found, {**defaults, key: float(value)}) for value in values],
        }
        for key, values in SWEEPS.items()
    }


def threshold(found: Similarities, hyperparameters: Mapping[str, float]) -> float:
    """Return the unified threshold b/s for these similarities, see unified_bias."""
    filled = found.counts > 0
    negative = ((EDGES[:-1] + EDGES[1:]) / 2)[filled]
    per_sample = found.counts[filled] / len(found.positive)
    b = unified_bias(found.positive, negative, per_sample, hyperparameters)
    return b / hyperparameters["scale"]


def curves_at(found: Similarities, hyperparameters: Mapping[str, float]) -> Curves:
    """Return UCE's curves with these hyperparameters and the b that they lead to."""
    given: dict[str, Any] = dict(hyperparameters)
    bias = threshold(found, given) * given["scale"]
    del given["sampling_rate"]  # it acts through b alone: the terms are the same
    return loss_curves(losses.create("uce", **given), len(found.column_positive), bias)


def _sigmoid(x: np.ndarray) -> np.ndarray:
    small = np.exp(-np.abs(x))
    sigmoid: np.ndarray = np.where(x >= 0, 1.0, small) / (1 + small)
    return sigmoid
