"""No loss gives a NaN, whatever features, prototypes and labels are: over the whole registry."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.examples import examples
from tests.helpers.sharded_head import run_head
from uniface_jax import losses

BATCH, DIMENSION = 4, 16
# Of a sample's feature, from its own prototype w and noise.
FEATURES = {
    "own": lambda w, noise: 3 * w,
    "opposite": lambda w, noise: -3 * w,
    "zero": lambda w, noise: 0 * w,
    "tiny": lambda w, noise: 1e-7 * noise,
    "huge": lambda w, noise: 1e20 * noise / np.linalg.norm(noise),
    "usual": lambda w, noise: noise,
}
PROTOTYPES = {"usual": 1.0, "tiny": 1e-7, "huge": 1e20, "zero": 0.0}
# The rest of the registry is slow: a program of each loss for each number of classes and dtype.
FAST = ("uce", "magface")


def finite(result):
    values = (result.loss, *result.gradients, *result.similarities[:1], *result.statistics.values())
    return all(np.isfinite(np.asarray(x)).all() for x in values)


@pytest.mark.parametrize("several", [None, 2], ids=["", "subcentres"])
@pytest.mark.parametrize("product_dtype", [None, jnp.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name in FAST else pytest.mark.slow) for name in losses.LOSSES],
)
@examples(40)
@given(data=st.data())
def test_no_loss_gives_a_nan(name, product_dtype, several, data):
    """One class, two, or five; cosines of ±1; norms of 0 and 1e20; all labels equal."""
    classes = data.draw(st.sampled_from([1, 2, 5]))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    loss = losses.create(name)
    shape = (classes, DIMENSION) if several is None else (classes, several, DIMENSION)
    prototypes = rng.standard_normal(shape)
    for number in range(classes):
        prototypes[number] *= PROTOTYPES[data.draw(st.sampled_from(sorted(PROTOTYPES)))]
    same = data.draw(st.booleans())
    labels = np.zeros(BATCH, int) if same else rng.integers(0, classes, BATCH)
    own = prototypes[labels] if several is None else prototypes[labels, 0]
    noise = rng.standard_normal((BATCH, DIMENSION))
    kinds = [data.draw(st.sampled_from(sorted(FEATURES))) for _ in range(BATCH)]
    rows = zip(kinds, own, noise, strict=True)
    features = np.stack([FEATURES[kind](*row) for kind, *row in rows])
    bias = np.full(classes if loss.bias == "class" else (), loss.initial_bias(classes, 1.0))
    arrays = [np.float32(x) for x in (features, prototypes, bias)]
    result, _ = run_head(name, *arrays, labels, block=3, product_dtype=product_dtype)
    assert finite(result)
