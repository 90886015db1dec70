"""CR-FIQA: the certainty ratio from the streamed head, and the linear head that learns it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from tests.helpers.dense_head import assert_same, normalized
from tests.helpers.sharded_head import LAYOUTS, run_head
from uniface_jax.head import quality
from uniface_jax.head.blocks import FILL
from uniface_jax.head.loss import Relative
from uniface_jax.runtime.parallel import AXIS

RTOL = 1e-9


@functools.cache
def program(regression, shards):
    """The compiled regression, whose gradients by the linear head are summed over the devices."""

    def device(head, features, cosines):
        found = quality.graded(regression, head, features, cosines)
        return found._replace(by_head=jax.tree.map(lambda x: jax.lax.psum(x, AXIS), found.by_head))

    mapped = jax.shard_map(
        device,
        mesh=Mesh(np.array(jax.devices()[:shards]), (AXIS,)),
        in_specs=(P(), P(AXIS), P(AXIS)),
        out_specs=quality.Graded(P(), P(AXIS), P(), P()),
        check_vma=False,
    )
    return jax.jit(mapped)


def run(name, features, prototypes, labels, head, regression, **settings):
    """The head of the classes and the regression beside it: Result and Graded."""
    result, _ = run_head(
        name, features, prototypes, np.float64(0), labels, relative=True, **settings
    )
    graded = program(regression, settings.get("shards", 1))
    return result, graded(head, features, result.relative)


def repeated(array, shards):
    return np.concatenate([array] * (shards // np.gcd(shards, len(array))))


@pytest.mark.parametrize(("shards", "block"), LAYOUTS)
@pytest.mark.parametrize("case", ["crfiqa", "crfiqa_near", "crfiqa_behind"])
def test_golden(golden2, x64, case, shards, block):
    """Value and gradients of both terms, by the release's ratio; apart where the case has them."""
    file = golden2("losses2")
    near = "_near" if case == "crfiqa_near" else ""
    features, labels = (repeated(file[key], shards) for key in (f"features{near}", "labels"))
    head = {"kernel": file["crfiqa/quality_w"][0], "bias": file["crfiqa/quality_b"][0]}
    prototypes = file.get(f"{case}/prototypes", file["prototypes"])
    result, graded = run(
        "arcface", features, prototypes, labels, head, quality.Regression(10.0, 0.5, True),
        shards=shards, block=block, varied={"scale": 16.0 if near else 64.0},
    )  # fmt: skip
    for name, key in (("own", "ccs"), ("nearest", "nnccs")):
        if f"{case}/{key}" in file:
            expected = repeated(file[f"{case}/{key}"], shards)
            if case == "crfiqa_behind" and key == "nnccs":
                expected = repeated(file[f"{case}/true_max_negative"], shards)
            np.testing.assert_allclose(getattr(result.relative, name), expected, rtol=RTOL)
    ratio = quality.certainty_ratio(result.relative, as_published=True)
    if case == "crfiqa_behind":  # the release's denominator, whose own class counts as -1e-12
        expected = repeated(file[f"{case}/ccs"] / file[f"{case}/nnccs"], shards)
        np.testing.assert_allclose(ratio, expected, rtol=RTOL)
        return
    np.testing.assert_allclose(ratio, repeated(file[f"{case}/ratio"], shards), rtol=RTOL)
    times = len(features) / len(file["features"])
    total = result._replace(
        loss=result.loss + graded.loss,
        gradients=result.gradients._replace(
            features=times * (result.gradients.features + graded.by_features)
        ),
    )
    expected = (repeated(file[f"{case}/dfeatures"], shards), file[f"{case}/dprototypes"], 0.0)
    assert_same(total, (file[f"{case}/loss"], *expected), RTOL)
    for name, key in (("kernel", "w"), ("bias", "b")):
        expected = file[f"{case}/dquality_{key}"]
        np.testing.assert_allclose(
            np.ravel(graded.by_head[name]), expected.ravel(), rtol=RTOL, atol=1e-11
        )
    if f"{case}/qs/loss" in file:
        np.testing.assert_allclose(graded.loss / 10, file[f"{case}/qs/loss"], rtol=RTOL)
        expected = repeated(file[f"{case}/qs/dfeatures"], shards)
        np.testing.assert_allclose(times * graded.by_features / 10, expected, rtol=RTOL, atol=1e-14)


def dense_ratio(features, prototypes, labels, classes):
    """Own cosine over the largest of the others plus one, over all of these classes."""
    cos = np.asarray(normalized(features) @ normalized(prototypes).T)
    own = np.arange(len(prototypes)) == np.asarray(labels)[:, None]
    taken = np.isin(np.arange(len(prototypes)), classes)
    others = np.where(own | ~taken, -np.inf, cos).max(1)
    return cos[own] / (others + 1 + 1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["uce", "cosface"])
@pytest.mark.parametrize("classes", [None, (0, 2, 3, 6, 8, 11)])
def test_the_papers_ratio_with_any_loss_and_sampled_classes(x64, name, classes):
    """By both families of losses; of sampled classes only those that take part are near."""
    rng = np.random.default_rng(0)
    features, prototypes = rng.standard_normal((6, 5)), rng.standard_normal((13, 5))
    labels = rng.choice(classes or 13, 6)
    head = {"kernel": rng.standard_normal(5), "bias": np.float64(0.3)}
    regression = quality.Regression(3.0, 0.25)
    result, graded = run(
        name, features, prototypes, labels, head, regression, shards=2, block=4, classes=classes
    )
    target = dense_ratio(features, prototypes, labels, classes or range(13))
    np.testing.assert_allclose(quality.certainty_ratio(result.relative), target, rtol=RTOL)
    without, _ = run_head(
        name, features, prototypes, np.float64(0), labels, shards=2, block=4, classes=classes
    )
    jax.tree.map(np.testing.assert_array_equal, result._replace(relative=None), without)

    def plain(features, head):
        distance = jnp.abs(features @ head["kernel"] + head["bias"] - target)
        small = 0.5 * distance**2 / 0.25
        return 3 * jnp.mean(jnp.where(distance < 0.25, small, distance - 0.125))

    value, (by_features, by_head) = jax.value_and_grad(plain, (0, 1))(jnp.asarray(features), head)
    np.testing.assert_allclose(graded.loss, value, rtol=RTOL)
    np.testing.assert_allclose(graded.by_features, by_features, rtol=RTOL, atol=1e-14)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=RTOL), graded.by_head, by_head)
    np.testing.assert_allclose(graded.ratio, target.mean(), rtol=RTOL)


@pytest.mark.parametrize("as_published", [False, True])
def test_cosines_at_their_ends_give_no_nan(as_published):
    """Without any other class, with one in front or behind, at right angles, of huge features."""
    own = np.float32([1, -1, 0, 0, 0.5, -0.5])
    nearest = np.float32([FILL, FILL, FILL, 0, 1, -0.5])
    features = np.float32([[1e20, 0], [0, 0], [1, 1], [-1e20, 1], [3, 4], [0, 1e-20]])
    head = {"kernel": np.float32([0.5, -0.5]), "bias": np.float32(0)}
    regression = quality.Regression(10.0, 0.5, as_published)
    graded = program(regression, 1)(head, features, Relative(own, nearest))
    assert all(np.isfinite(np.asarray(x)).all() for x in jax.tree.leaves(graded))
