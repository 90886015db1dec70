"""The second head: samples against a memory of features, streamed and sharded."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from tests.helpers.dense_head import assert_same, normalized
from tests.helpers.sharded_head import run_head
from uniface_jax.head.blocks import Prototypes
from uniface_jax.head.loss import Products, Shard
from uniface_jax.head.positives import gather
from uniface_jax.head.samples import SampleResult, in_shard, sample_to_sample, written
from uniface_jax.head.sampling import Subset
from uniface_jax.head.shards import owned_classes, shard_size
from uniface_jax.losses.additive import uss
from uniface_jax.runtime.parallel import AXIS

RTOL = 1e-9


@functools.cache
def program(shards, block, num_classes, scale, sampled):
    """The compiled head, of a memory and a batch to its result and the memory after.

    scale: built in, None for the argument's: one program serves several.
    """
    rows = shard_size(num_classes, shards)

    def device(memory, taken, bias, varied, features, labels):
        start, valid = owned_classes(num_classes, rows)
        subset = None
        if sampled:
            index = jnp.sort(jnp.where(taken & valid, jnp.arange(rows), rows)).astype(jnp.int32)
            subset = Subset(jnp.minimum(index, rows - 1), index < rows)
            valid = subset.valid
        shard = Shard(Prototypes(memory, bias, valid), start, rows, subset)
        batch = gather(features, labels)
        result = sample_to_sample(
            uss(varied if scale is None else scale),
            in_shard(memory, shard),
            bias,
            batch,
            Products(block),
        )
        return result, written(memory, batch, start, result.loss)

    mapped = jax.shard_map(
        device,
        mesh=Mesh(np.array(jax.devices()[:shards]), (AXIS,)),
        in_specs=(P(AXIS), P(AXIS), P(), P(), P(AXIS), P(AXIS)),
        out_specs=(SampleResult(P(), P(AXIS), P(), P()), P(AXIS)),
        check_vma=False,
    )
    return jax.jit(mapped)


def run(memory, bias, features, labels, shards=1, block=7, scale=64.0, classes=None):
    num_classes = len(memory)
    rows = shard_size(num_classes, shards) * shards
    padded = np.pad(memory, [(0, rows - num_classes), (0, 0)])
    taken = np.ones(rows, bool) if classes is None else np.isin(np.arange(rows), classes)
    built_in = scale if memory.dtype == np.float32 else None
    compiled = program(shards, block, num_classes, built_in, classes is not None)
    numbers = (np.asarray(x, memory.dtype) for x in (bias, scale))
    arrays = (padded, taken, *numbers, features, np.asarray(labels, np.int32))
    result, after = jax.device_get(compiled(*arrays))
    assert not after[num_classes:].any(), "a padding row"
    return result, after[:num_classes]


def repeated(features, labels, shards):
    """The batch so often that it divides by the shards: mean and last samples stay the same."""
    times = shards // np.gcd(shards, len(labels))
    return np.tile(features, (times, 1)), np.tile(labels, times), times


def golden_arrays(file, case):
    near = "_near" if case.endswith("_near") else ""
    labels = file["labels_dup" if case in ("uss_dup", "unitsface_epoch0") else "labels"]
    return file["memory" + near], file["features" + near], labels, 16.0 if near else 64.0


def check(file, case, shards, block):
    """The case through the second head, and the first one where it is the sum of both."""
    memory, features, labels, scale = golden_arrays(file, case)
    features, labels, times = repeated(features, labels, shards)
    bias = file.get(f"{case}/bias", np.zeros(1))[0]
    result, after = run(memory, bias, features, labels, shards, block, scale)
    expected_set = file.get(f"{case}/bias_set")
    if expected_set is None:
        np.testing.assert_array_equal(result.bias, bias)
    else:
        np.testing.assert_allclose(result.bias, expected_set[0], rtol=RTOL)
    loss, by_features = result.loss, result.by_features
    if case.startswith("unitsface"):
        name = case.split("_")[1]
        class_bias = file.get(f"{case}/class_bias", np.zeros(1))[0]
        of_classes, _ = run_head(
            name, features, file["prototypes"], class_bias, labels, shards=shards, block=block,
            varied={"scale": scale, "margin": 0.4},
        )  # fmt: skip
        loss, by_features = loss + of_classes.loss, by_features + of_classes.gradients.features
        np.testing.assert_allclose(
            of_classes.gradients.weight, file[f"{case}/dprototypes"], rtol=RTOL, atol=1e-11
        )
        if name == "uce":
            np.testing.assert_allclose(
                of_classes.gradients.bias, file[f"{case}/dclass_bias"][0], rtol=RTOL
            )
    np.testing.assert_allclose(loss, file[f"{case}/loss"], rtol=RTOL)
    np.testing.assert_allclose(result.by_bias, file[f"{case}/dbias"][0], rtol=RTOL, atol=1e-11)
    wanted = np.tile(file[f"{case}/dfeatures"], (times, 1)) / times
    largest = np.abs(wanted).max()
    np.testing.assert_allclose(by_features, wanted, rtol=RTOL, atol=RTOL * largest)
    if f"{case}/memory_after" in file:
        np.testing.assert_array_equal(after, file[f"{case}/memory_after"])


def cases(file):
    """All of USS but the warm-up, in which it has no part."""
    found = {key.split("/")[0] for key in file if key.startswith(("uss", "unitsface"))}
    return sorted(found - {"unitsface_epoch0"})


@pytest.mark.parametrize(
    ("shards", "block"),
    [
        pytest.param(shards, block, marks=() if (shards, block) == (3, 7) else pytest.mark.slow)
        for shards in (1, 2, 3, 8)
        for block in (1, 7, 37)
    ],
)
def test_golden(golden2, x64, shards, block):
    file = golden2("losses2")
    found = cases(file)
    assert len(found) >= 9
    for case in found:
        check(file, case, shards, block)


@pytest.mark.parametrize("shards", [pytest.param(1, marks=pytest.mark.slow), 3])
def test_golden_warm_up(golden2, x64, shards):
    """CosFace alone, and a memory that is written already; tests/train says that b stays at 0."""
    file, case = golden2("losses2"), "unitsface_epoch0"
    memory, features, labels, _ = golden_arrays(file, case)
    features, labels, times = repeated(features, labels, shards)
    result, _ = run_head(
        "cosface", features, file["prototypes"], np.float64(0), labels, shards=shards,
        varied={"scale": 64.0, "margin": 0.4},
    )  # fmt: skip
    by_features = np.tile(file[f"{case}/dfeatures"], (times, 1)) / times
    expected = (file[f"{case}/loss"], by_features, file[f"{case}/dprototypes"], np.float64(0))
    assert_same(result, expected, RTOL)
    _, after = run(memory, 9.0, features, labels, shards)
    np.testing.assert_array_equal(after, file[f"{case}/memory_after"])


def dense_uss(features, memory, bias, labels, classes, scale=64.0, margin=0.1):
    """The loss over some classes, of which those without a feature take no part, and gradients."""

    def loss(features, bias):
        cos = normalized(features) @ normalized(memory[classes]).T
        seen = np.any(memory[classes] != 0, 1)[None]
        own = np.asarray(labels)[:, None] == np.asarray(classes)[None]
        z = jnp.clip(scale * (cos - margin * own) - bias, -scale, scale)
        each = jnp.where(own, jnp.logaddexp(0, -z), jnp.logaddexp(0, z))
        return jnp.mean(jnp.sum(jnp.where(seen, each, 0), 1))

    value, (by_features, by_bias) = jax.value_and_grad(loss, (0, 1))(features, bias)
    return value, by_features, by_bias


@pytest.fixture
def problem(x64):
    rng = np.random.default_rng(1)
    memory = rng.standard_normal((29, 8))
    memory[[3, 4, 17]] = 0  # not seen yet; 3 has samples
    labels = np.array([3, 8, 8, 20, 3, 28, 0, 11])
    return memory, rng.standard_normal((8, 8)), labels


@pytest.mark.parametrize("shards", [2, pytest.param(8, marks=pytest.mark.slow)])
@pytest.mark.parametrize("classes", [None, [0, 3, 5, 8, 11, 13, 17, 20, 21, 28]])
def test_classes_that_were_not_seen_or_not_sampled_take_no_part(problem, shards, classes):
    memory, features, labels = problem
    result, _ = run(memory, 9.0, features, labels, shards, classes=classes)
    among = np.arange(len(memory)) if classes is None else np.array(classes)
    expected = dense_uss(features, memory, 9.0, labels, among)
    for found, other in zip(result[:3], expected, strict=True):
        np.testing.assert_allclose(found, other, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("bias", [0.0, -3.0])
def test_a_bias_not_above_zero_is_set_from_the_sampled_negatives(problem, bias):
    memory, features, labels = problem
    classes = np.array([0, 3, 5, 8, 11, 13, 17, 20, 21, 28])
    result, _ = run(memory, bias, features, labels, 2, classes=classes)
    cos = np.asarray(normalized(features) @ normalized(memory[classes]).T)
    negative = (labels[:, None] != classes[None]) & memory[classes].any(1)[None]
    each = np.log(np.sum(np.where(negative, np.exp(64 * cos), 0), 1))
    np.testing.assert_allclose(result.bias, each.mean(), rtol=1e-12)


def test_samples_without_negatives_are_left_out_of_the_bias(problem):
    """Where one class alone was seen, its own samples have none."""
    memory, features, labels = problem
    memory[np.arange(len(memory)) != 8] = 0
    result, _ = run(memory, 0.0, features, labels, 2)
    cos = np.asarray(normalized(features) @ normalized(memory[8:9]).T)[:, 0]
    assert 0 < np.sum(labels == 8) < len(labels)
    np.testing.assert_allclose(result.bias, 64 * cos[labels != 8].mean(), rtol=1e-12)


def test_an_empty_memory_has_no_loss_and_sets_no_bias(problem):
    memory, features, labels = problem
    result, after = run(np.zeros_like(memory), 0.0, features, labels, 2)
    for value in result:
        assert not np.any(value)
    seen = np.any(after, axis=1)
    np.testing.assert_array_equal(np.flatnonzero(seen), np.unique(labels))


def test_one_class_has_no_negatives(problem):
    _, features, labels = problem
    memory = np.ones((1, 8))
    result, _ = run(memory, 0.0, features, np.zeros_like(labels))
    assert result.bias == 0
    expected = dense_uss(features, memory, 0.0, np.zeros_like(labels), np.arange(1))
    np.testing.assert_allclose(result.loss, expected[0], rtol=1e-12)


@pytest.mark.parametrize("shards", [1, pytest.param(2, marks=pytest.mark.slow), 4])
def test_the_last_of_the_global_batch_is_kept(problem, shards):
    memory, features, _ = problem
    labels = np.array([5, 28, 5, 7, 7, 7, 28, 5])
    _, after = run(memory, 9.0, features, labels, shards)
    expected = memory.copy()
    for label, feature in zip(labels, features, strict=True):
        expected[label] = feature
    np.testing.assert_array_equal(after, expected)


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("shards", [1, 3])
def test_kernel_of_frozen_prototypes(shards):
    """In float32 on CPUs the kernel of UCE, without the gradients by the memory."""
    rng = np.random.default_rng(2)
    memory, features = (rng.standard_normal((n, 32), np.float32) for n in (301, 12))
    memory[7] = 0
    labels = rng.integers(0, 301, 12)
    arrays = (memory, np.ones(301, bool), np.float32(20), np.float32(64))
    if shards == 1:
        lowered = program(1, 64, 301, 64.0, False).lower(*arrays, features, labels)
        assert "uniface_cross_entropy_head" in lowered.as_text()
        assert "tensor<0x32xf32>" in lowered.as_text()
    result, _ = run(memory, 20.0, features, labels, shards, 64)
    with jax.enable_x64(True):
        wide = (np.float64(features), np.float64(memory))
        expected = dense_uss(*wide, 20.0, labels, np.arange(301))
    for found, other in zip(result[:3], expected, strict=True):
        largest = np.max(np.abs(other))
        np.testing.assert_allclose(found, other, rtol=4e-5, atol=4e-5 * largest)
