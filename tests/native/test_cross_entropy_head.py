"""The head's kernel against the pass that XLA compiles, in float64, and the dense formulas."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.dense_head import assert_same, dense
from tests.helpers.examples import examples
from tests.helpers.head_problems import FACTOR, draw, tolerance, tolerances
from tests.helpers.sharded_head import run_head
from uniface_jax import losses
from uniface_jax.head.blocks import (
    Sums,
    additive_pass,
)
from uniface_jax.native import build

pytestmark = pytest.mark.usefixtures("kernels")

KERNEL = "uniface_cross_entropy_head"


def compiled(loss, prototypes, samples):
    """additive_pass for these arrays, and whether it calls the kernel."""

    def run(prototypes, samples):
        return additive_pass(loss, prototypes, samples, 128, FACTOR)

    lowered = jax.jit(run).lower(prototypes, samples)
    return lowered.compile(), KERNEL in lowered.as_text()


@examples(25)
@given(
    seed=st.integers(0, 2**31 - 1),
    batch=st.integers(1, 40),
    classes=st.integers(1, 1000),
    vectors=st.integers(1, 5),
    negative_weight=st.sampled_from([1.0, 0.3, 10.0]),
    scale=st.sampled_from([1.0, 30.0, 64.0, 87.0]),
    bias=st.sampled_from([-0.5, 0.1, 0.3, 1.5]),
    by_class=st.booleans(),
    saturated=st.booleans(),
    invalid=st.sampled_from([0.0, 0.3, 1.0]),
)
def test_any_problem(seed, batch, classes, vectors, negative_weight, scale, **kinds):
    loss = losses.create("uce", scale=scale, negative_weight=negative_weight)
    dimension = vectors * build.vector_width()
    prototypes, samples = draw(seed, batch, classes, dimension, scale, **kinds)
    run, is_kernel = compiled(loss, prototypes, samples)
    assert is_kernel
    found = jax.device_get(run(prototypes, samples))
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(run(prototypes, samples)), found)
    with jax.enable_x64(True):
        wide = [
            jax.tree.map(lambda x: x.astype(np.float64) if x.dtype == np.float32 else x, arrays)
            for arrays in (prototypes, samples)
        ]
        reference, is_kernel = compiled(loss, *wide)
        assert not is_kernel
        expected = jax.device_get(reference(*wide))
    allowed = tolerances(loss.scale, loss.clipped_cross_entropy, prototypes, samples)
    assert found.nearest is expected.nearest is None  # no loss of this kernel is relative
    for name, value, other, most in zip(Sums._fields, found, expected, allowed, strict=True):
        if name == "nearest":
            continue
        assert value.dtype == np.float32
        error = np.abs(value - other)
        if error.ndim == 2:
            error = np.linalg.norm(error, axis=1)
        assert np.all(error <= most + 1e-30), (name, np.max(error / (most + 1e-30)))
    assert not found.weight[~prototypes.valid].any()


@pytest.mark.parametrize(
    "changed",
    ["dimension", "dtype", "traced scale", "large scale", "another loss", "subcenters", "off"],
)
def test_all_else_is_compiled_by_xla(changed):
    width = build.vector_width()
    dimension = width + 1 if changed == "dimension" else width
    kinds = dict(bias=0.2, by_class=False, saturated=False, invalid=0.0)
    arrays = draw(0, 3, 5, dimension, 64.0, **kinds)
    if changed == "dtype":
        low = arrays[1].directions.astype(jnp.bfloat16)
        arrays = arrays[0], arrays[1]._replace(directions=low)
    if changed == "subcenters":
        several = np.stack([arrays[0].weight, -arrays[0].weight], 1)
        arrays = arrays[0]._replace(weight=several), arrays[1]
    name = "sphereface2" if changed == "another loss" else "uce"

    def run(prototypes, samples, scale):
        fixed = {"large scale": 88.0, "traced scale": scale}.get(changed, 64.0)
        loss = losses.LOSSES[name](scale=fixed)
        return additive_pass(loss, prototypes, samples, 128, FACTOR)

    def is_kernel():
        anew = jax.jit(lambda *arguments: run(*arguments))  # `run` may be traced already
        return KERNEL in anew.lower(*arrays, np.float32(64.0)).as_text()

    if changed == "off":
        assert is_kernel()
        with build.off():
            assert not is_kernel()
    else:
        assert not is_kernel()


def whole(name, num_classes, seed=0):
    """Features, prototypes, bias and labels in float32 for 24 samples."""
    rng = np.random.default_rng(seed)
    loss, dimension = losses.create(name), 2 * build.vector_width()
    bias = np.full((num_classes,) if loss.bias == "class" else (), 0.0)
    bias += loss.initial_bias(num_classes, 1.0) + rng.normal(0, 3, bias.shape)
    labels = rng.integers(0, num_classes, 24)
    prototypes = rng.standard_normal((num_classes, dimension))
    features = rng.normal(0, 3, (24, dimension))
    features[::2] = 4 * prototypes[labels[::2]] + 0.3 * features[::2]
    return [np.float32(x) for x in (features, prototypes, bias)] + [labels]


@pytest.mark.parametrize("rate", [None, 0.4])
@pytest.mark.parametrize("shards", [1, 2, 3, 8])
@pytest.mark.parametrize("name", ["uce", "bce"])
def test_the_whole_head(name, shards, rate):
    arrays = whole(name, 531)
    sampling = rate and (jax.random.key(1), rate)
    result, drawn = run_head(name, *arrays, shards=shards, sampling=sampling)
    assert drawn[arrays[3]].all()
    with jax.enable_x64(True):
        wide = [np.float64(x) for x in arrays[:3]]
        expected = dense(name, *wide, arrays[3], classes=np.flatnonzero(drawn))
    assert_same(result, expected, rtol=tolerance(64.0))


def test_pmap_calls_it_too():
    arrays = whole("uce", 300)
    one, _ = run_head("uce", *arrays, shards=4)
    other, _ = run_head("uce", *arrays, shards=4, mode="pmap")
    assert_same(other, (one.loss, *one.gradients), rtol=1e-6)
