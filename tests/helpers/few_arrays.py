"""A state of a few arrays, for tests of checkpoints that are opened many times.

The files have all the kinds that a network's have, and opening them takes little time.
"""

import numpy as np

from uniface_jax.state import TrainState, Weights


def few_arrays(step: int, num_classes: int) -> TrainState:
    """Return a state of random arrays that are other ones at every step."""
    rng = np.random.default_rng(step)

    def draw(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(np.float32)

    def weights() -> Weights:
        kernel = {"conv": {"kernel": draw(3, 3, 9, 32)}}
        return Weights(kernel, draw(num_classes, 512), draw(num_classes))

    statistics = {"bn": {"mean": draw(8), "var": np.ones(8, np.float32)}}
    return TrainState(np.int32(step), weights(), weights(), statistics, {"scale": draw()})
