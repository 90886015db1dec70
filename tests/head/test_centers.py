"""AdaDistill: class centers moved toward a teacher's features, and the loss against them."""

import functools
from dataclasses import replace

import jax
import numpy as np
import pytest
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from tests.helpers.sharded_head import LAYOUTS
from uniface_jax import losses
from uniface_jax.head.blocks import Prototypes
from uniface_jax.head.centers import Moved, moved
from uniface_jax.head.loss import Products, Shard, loss_and_gradients
from uniface_jax.head.positives import gather
from uniface_jax.head.shards import owned_classes, shard_size
from uniface_jax.losses.base import cosine_of_sum
from uniface_jax.runtime.parallel import AXIS

RTOL = 1e-9


@functools.cache
def program(name, shards, block, num_classes):
    """The compiled step of the head: centers moved first, and the loss against them, frozen."""
    rows = shard_size(num_classes, shards)

    def device(scale, centers, student, teacher, labels):
        start, valid = owned_classes(num_classes, rows)
        after = moved(centers, student, teacher, labels, start)
        prototypes = Prototypes(after.centers, np.zeros((), centers.dtype), valid)
        shard = Shard(prototypes, start, rows, frozen=True)
        loss = losses.LOSSES[name](scale, 0.45)
        if name == "arcface":  # whose release goes on with cos(θ + m) beyond π; one sample is there
            loss = replace(loss, positive=lambda cos, b: scale * cosine_of_sum(cos, 0.45))
        result = loss_and_gradients(loss, shard, gather(student, labels), products=Products(block))
        assert result.gradients.weight is None
        return after, result.loss, result.gradients.features

    mapped = jax.shard_map(
        device,
        mesh=Mesh(np.array(jax.devices()[:shards]), (AXIS,)),
        in_specs=(P(), P(AXIS), P(AXIS), P(AXIS), P(AXIS)),
        out_specs=(Moved(P(AXIS), P(), P()), P(), P(AXIS)),
        check_vma=False,
    )
    return jax.jit(mapped)


@pytest.mark.parametrize(("shards", "block"), LAYOUTS)
@pytest.mark.parametrize("case", ["arc", "cos", "arc_dup", "arc_near", "cos_near"])
def test_golden(golden2, x64, case, shards, block):
    file, name = golden2("losses2"), f"adadistill_{case}"
    labels = file["labels_dup" if case.endswith("dup") else "labels"]
    times = shards // np.gcd(shards, len(labels))
    features, teacher, labels = (
        np.concatenate([x] * times)
        for x in (file["features"], file["adadistill/teacher"], labels.astype(np.int32))
    )
    centers = file["adadistill/centres"]
    padding = -len(centers) % shards
    run = program(f"{case[:3]}face", shards, block, len(centers))
    scale = 16.0 if case.endswith("near") else 64.0
    after, loss, by_features = run(
        scale, np.pad(centers, [(0, padding), (0, 0)]), features, teacher, labels
    )
    expected = file[f"{name}/centres_after"]
    np.testing.assert_allclose(after.centers[: len(centers)], expected, rtol=1e-12, atol=1e-15)
    untouched = ~np.isin(np.arange(len(centers)), labels)
    np.testing.assert_array_equal(after.centers[: len(centers)][untouched], centers[untouched])
    np.testing.assert_allclose(after.kept, file[f"{name}/alpha"].mean(), rtol=RTOL)
    np.testing.assert_allclose(loss, file[f"{name}/loss"], rtol=RTOL)
    expected = np.concatenate([file[f"{name}/dfeatures"]] * times) / times
    np.testing.assert_allclose(by_features, expected, rtol=RTOL, atol=RTOL * np.abs(expected).max())


def test_features_of_no_length_give_no_nan():
    """Zeros for center, student and teacher, and norms of 1e20."""
    rows = np.float32([[0, 0], [1e20, 0], [1, 1], [-1, 0]])
    labels = np.arange(4, dtype=np.int32)
    run = program("arcface", 1, 7, 4)
    for centers, student, teacher in ((rows, rows[::-1], rows), (rows, rows, rows[::-1])):
        found = run(np.float32(64), centers, student.copy(), teacher.copy(), labels)
        assert all(np.isfinite(np.asarray(x)).all() for x in jax.tree.leaves(found))
