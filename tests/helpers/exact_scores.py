"""Features whose products are exact in float32, and plain loops over their scores."""

import jax
import numpy as np

from uniface_jax.evaluate.all_pairs.tiles import Tiling
from uniface_jax.evaluate.metrics.roc import roc, tar_at_far

WIDTH = 4
ONE_DEVICE = Tiling(block=128, devices=jax.devices()[:1])


def signs(rng: np.random.Generator, images: int) -> np.ndarray:
    """Features of length 2 whose unit rows have exact products: nothing rounds, many tie."""
    return rng.choice([-1.0, 1.0], (images, WIDTH)).astype(np.float32)


def strict(scores, same, fars):
    return [point.strict for point in tar_at_far(roc(scores, same), fars)]


def unit_scores(first, second):
    return (first / 2) @ (second / 2).T
