"""Distillation toward a teacher's features: golden numbers, the map's gradient, odd features."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from uniface_jax.head.distillation import toward_teacher
from uniface_jax.runtime.parallel import AXIS

RTOL = 1e-9


def distilled(weight, features, teacher, to_teacher=None, shards=1):
    """Value, gradients by the features and by the map, of features split over devices."""

    def one(features, teacher):
        found = toward_teacher(weight, features, teacher, to_teacher)
        by_map = None if found.by_map is None else jax.lax.psum(found.by_map, AXIS)
        return found.loss, found.by_features, by_map

    mesh = Mesh(np.array(jax.devices()[:shards]), (AXIS,))
    by_map = None if to_teacher is None else P()
    mapped = jax.shard_map(
        one, mesh=mesh, in_specs=P(AXIS), out_specs=(P(), P(AXIS), by_map), check_vma=False
    )
    return jax.jit(mapped)(features, teacher)


@pytest.mark.parametrize("shards", [1, 2, 3, 8])
def test_golden_cosine_distillation(golden2, x64, shards):
    file = golden2("losses2")
    times = shards // np.gcd(shards, len(file["features"]))
    features, teacher = (
        np.tile(file[name], (times, 1)) for name in ("features", "adadistill/teacher")
    )
    loss, by_features, _ = distilled(1.0, features, teacher, shards=shards)
    expected = np.tile(file["cosine_distillation/dfeatures"], (times, 1)) / times
    np.testing.assert_allclose(loss, file["cosine_distillation/loss"], rtol=RTOL)
    np.testing.assert_allclose(by_features, expected, rtol=RTOL, atol=RTOL * abs(expected).max())


@pytest.mark.parametrize("shards", [1, 2])
def test_a_map_is_trained_with_the_student(x64, shards):
    rng = np.random.default_rng(1)
    features, teacher, to_teacher = (rng.normal(size=size) for size in ((6, 4), (6, 5), (4, 5)))

    def plain(features, to_teacher):
        student = features @ to_teacher
        norms = jnp.linalg.norm(student, axis=1) * jnp.linalg.norm(teacher, axis=1)
        return 3 * jnp.mean(1 - jnp.sum(student * teacher, axis=1) / norms)

    value, gradients = jax.value_and_grad(plain, (0, 1))(features, to_teacher)
    loss, by_features, by_map = distilled(3.0, features, teacher, to_teacher, shards)
    np.testing.assert_allclose(loss, value, rtol=RTOL)
    np.testing.assert_allclose(by_features, gradients[0], rtol=RTOL)
    np.testing.assert_allclose(by_map, gradients[1], rtol=RTOL)


def test_features_of_no_length_or_too_much_give_no_nan():
    features = np.array([[0, 0], [1e30, 0], [1, 1], [3, -4]], np.float32)
    teacher = np.array([[1, 0], [1, 0], [0, 0], [3, -4]], np.float32)
    loss, by_features, _ = distilled(1.0, features, teacher)
    assert np.isfinite(loss)
    assert np.isfinite(by_features).all()
    np.testing.assert_allclose(by_features[2:], 0, atol=1e-7)
