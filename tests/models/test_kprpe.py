"""KP-RPE against plain loops in float64, and what its landmarks do to features."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from uniface_jax import models
from uniface_jax.data.formats.landmarks import TEMPLATE, from_pixels, mirrored
from uniface_jax.errors import UserError
from uniface_jax.models.kprpe import (
    BUCKETS,
    KPRPE,
    SIDE,
    VARIANTS,
    KeypointBias,
    bucket_ids,
    offsets,
)

HEADS, DEPTH, PATCH = 2, 2, 16
PLACES = 112 // PATCH  # of patches along a side


def plain_index(offset: int) -> int:
    """iRPE's piecewise index, word for word: alpha, beta, gamma = 1.9 x (1, 2, 8)."""
    alpha, beta, gamma = 1.9, 3.8, 15.2
    if abs(offset) <= alpha:
        return offset
    far = round(alpha + math.log(abs(offset) / alpha) / math.log(gamma / alpha) * (beta - alpha))
    return int(math.copysign(min(far, beta), offset))


def plain_bucket(i: int, j: int, side: int) -> int:
    by_row = plain_index(i // side - j // side) + 3
    return by_row * 7 + plain_index(i % side - j % side) + 3


def plain_logits(landmarks, weight, bias, side):
    """B[h, i, bucket(i, j)] of one image, by loops; weight [10, heads * 49]."""
    tokens, heads = side * side, len(bias) // 49
    found = np.empty((heads, tokens, tokens))
    for i in range(tokens):
        center = (np.array([i % side, i // side]) + 0.5) / side  # x, y
        seen = [center[axis] - point[axis] for point in landmarks for axis in (0, 1)]
        table = [
            sum(seen[k] * weight[k, column] for k in range(10)) + bias[column]
            for column in range(heads * 49)
        ]
        for head in range(heads):
            for j in range(tokens):
                found[head, i, j] = table[head * 49 + plain_bucket(i, j, side)]
    return found


def some_landmarks(count, seed=0):
    moved = np.random.default_rng(seed).normal(0, 0.03, (count, 5, 2))
    return (from_pixels(TEMPLATE) + moved).astype(np.float64)


def small(**fields):
    sizes = dict(dim=16, depth=DEPTH, heads=HEADS, patch=PATCH, embedding_size=8, drop_path=0.0)
    return models.create("vit_kprpe_small", **(sizes | fields))


@pytest.fixture(scope="module")
def images():
    return jax.random.uniform(jax.random.key(2), (4, 112, 112, 3), minval=-1)


features = jax.jit(models.features, static_argnums=0)


@pytest.fixture(scope="module")
def start():
    """Return the first variables of `small`: (params, batch_stats)."""
    return jax.jit(lambda: models.initialize(small(), jax.random.key(1)))()


@pytest.fixture(scope="module")
def variables(start):
    """Variables of `small` whose linear function of the landmarks is not 0."""
    params, statistics = start
    random = np.random.default_rng(3)
    drawn = {key: random.normal(0, 10, x.shape) for key, x in params["keypoint_linear"].items()}
    return {"params": params | {"keypoint_linear": drawn}, "batch_stats": statistics}


@pytest.fixture(scope="module")
def embed(variables):
    """Features as at test time, of images and landmarks."""
    return partial(features, small(), variables)


@pytest.mark.parametrize("side", [1, 4, 14])
def test_buckets_are_those_of_the_plain_loop(side):
    pairs = range(side * side)
    expected = [[plain_bucket(i, j, side) for j in pairs] for i in pairs]
    np.testing.assert_array_equal(bucket_ids(side), expected)
    if side == 14:
        assert set(np.unique(bucket_ids(side))) == set(range(BUCKETS))


def test_logits_are_those_of_the_plain_loop(x64):
    random, side = np.random.default_rng(0), 5
    weight, bias = random.normal(size=(10, 3 * 49)), random.normal(size=3 * 49)
    landmarks = some_landmarks(2)
    seen = offsets(jnp.asarray(landmarks), side, 1 / side)
    found = KeypointBias(seen, jnp.asarray(weight), jnp.asarray(bias)).logits()
    expected = [plain_logits(one, weight, bias, side) for one in landmarks]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-13)


def norm(x, p, epsilon=1e-5):
    centered = x - x.mean(-1, keepdims=True)
    return (
        centered / np.sqrt((centered**2).mean(-1, keepdims=True) + epsilon) * p["scale"]
        + (p["bias"])
    )


def dense(x, p):
    return x @ p["kernel"] + p.get("bias", 0)


def plain_features(image, landmarks, params):
    """CVLface's network at test time in numpy, of one image [112, 112, 3]."""
    patches = image.reshape(PLACES, PATCH, PLACES, PATCH, 3).swapaxes(1, 2)
    patches = patches.reshape(PLACES**2, -1)
    kernel = params["patch_embed"]["proj"]["kernel"]
    x = patches @ kernel.reshape(-1, kernel.shape[-1]) + params["patch_embed"]["proj"]["bias"]
    x = x + params["pos_embed"][0]
    width, linear = HEADS * 49, params["keypoint_linear"]
    for index in range(DEPTH):
        block = params[f"blocks_{index}"]
        part = slice(index * width, (index + 1) * width)
        bias = plain_logits(landmarks, linear["kernel"][:, part], linear["bias"][part], PLACES)
        qkv = dense(norm(x, block["norm1"]), block["attn"]["qkv"])
        query, key, value = qkv.reshape(len(x), 3, HEADS, -1).transpose(1, 2, 0, 3)
        weights = np.exp(query @ key.swapaxes(1, 2) * query.shape[-1] ** -0.5 + bias)
        weights = weights / weights.sum(-1, keepdims=True)
        x = x + dense((weights @ value).swapaxes(0, 1).reshape(len(x), -1), block["attn"]["proj"])
        hidden = np.clip(dense(norm(x, block["norm2"]), block["mlp"]["fc1"]), 0, 6)
        x = x + dense(hidden, block["mlp"]["fc2"])
    x = dense(norm(x, params["norm"]).reshape(-1), params["feature_0"]) / np.sqrt(1 + 2e-5)
    return dense(x, params["feature_2"]) / np.sqrt(1 + 2e-5)


def test_the_whole_network_is_the_published_one_in_plain_numpy(variables, images, x64):
    network = small(dtype="float64")
    in_float64 = jax.tree.map(lambda x: np.asarray(x, np.float64), variables)
    landmarks = some_landmarks(2)
    some = np.asarray(images[:2], np.float64)
    found = jax.jit(lambda x, points: models.features(network, in_float64, x, points))(
        some, jnp.asarray(landmarks)
    )
    for index in range(2):
        expected = plain_features(some[index], landmarks[index], in_float64["params"])
        np.testing.assert_allclose(found[index], expected, rtol=0, atol=1e-11)


def test_at_first_it_is_the_plain_vit(start, images):
    """The linear function begins at zeros: the same features as a ViT of the same weights."""
    params, statistics = start
    plain = models.create(
        "vit_t", dim=16, depth=DEPTH, heads=HEADS, patch=PATCH, mlp_ratio=5, embedding_size=8,
        drop_path=0.0, mask_ratio=0.0,
    )  # fmt: skip
    shared = {key: value for key, value in params.items() if key != "keypoint_linear"}
    with_token = {"params": shared | {"mask_token": np.zeros((1, 1, 16), np.float32)}}
    expected = features(plain, with_token | {"batch_stats": statistics}, images)
    landmarks = jnp.asarray(some_landmarks(4), jnp.float32)
    found = features(small(), {"params": params, "batch_stats": statistics}, images, landmarks)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


def test_mirrored_faces_meet_mirrored_biases(x64):
    """Left and right exchanged in landmarks, buckets and weights gives the mirrored logits."""
    random, side = np.random.default_rng(0), 5
    weight, bias = random.normal(size=(5, 2, 2, 7, 7)), random.normal(size=(2, 7, 7))
    turned = weight[[1, 0, 2, 4, 3]] * np.array([-1, 1])[:, None, None, None]
    landmarks = jnp.asarray(some_landmarks(3))

    def logits(points, weight, bias):
        seen = offsets(points, side, 1 / side)
        found = KeypointBias(seen, weight.reshape(10, -1), bias.reshape(-1)).logits()
        return np.asarray(found).reshape(3, 2, side, side, side, side)

    found = logits(mirrored(landmarks), turned[..., ::-1], bias[..., ::-1])
    expected = logits(landmarks, weight, bias)[:, :, :, ::-1, :, ::-1]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-13)


def test_features_depend_on_each_image_s_own_landmarks(images, embed):
    landmarks = jnp.asarray(some_landmarks(4), jnp.float32)
    found = embed(images, landmarks)
    order = jnp.array([2, 0, 3, 1])
    np.testing.assert_allclose(embed(images[order], landmarks[order]), found[order], atol=1e-6)
    for points in (landmarks[:, [1, 0, 2, 3, 4]], landmarks[order], landmarks + 0.02):
        assert np.abs(embed(images, points) - found).max() > 1e-4


def test_the_template_is_what_it_is_without_landmarks(variables, images, embed):
    network = small(landmarks="template")
    assert models.takes_landmarks(small())
    assert not models.takes_landmarks(network)
    everywhere = jnp.broadcast_to(from_pixels(TEMPLATE), (4, 5, 2))
    baked = features(network, variables, images)
    np.testing.assert_allclose(baked, embed(images, everywhere), atol=1e-6)
    with pytest.raises(ValueError, match=r"landmarks \(4, 5, 2\) for a network of the template's"):
        models.features(network, variables, images, everywhere)
    with pytest.raises(ValueError, match="no landmarks for a network of the data's"):
        models.features(small(), variables, images)


def test_training_reaches_the_linear_function_with_remat_too(variables, images):
    landmarks = jnp.asarray(some_landmarks(4), jnp.float32)

    def gradients(network):
        def loss(params):
            found, _ = models.train_forward(
                network, variables | {"params": params}, images, jax.random.key(0), landmarks
            )
            return jnp.sum(found * jnp.arange(8.0)[None])

        return jax.jit(jax.grad(loss))(variables["params"])

    plain, again = gradients(small()), gradients(small(remat=True))
    assert all(np.any(x != 0) for x in jax.tree.leaves(plain["keypoint_linear"]))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-4), plain, again)


@pytest.mark.parametrize("name", VARIANTS)
def test_sizes_of_every_variant(name):
    network = models.create(name)
    params, _ = jax.eval_shape(lambda: models.initialize(network, jax.random.key(0)))
    depth, heads, ratio = (VARIANTS[name][key] for key in ("depth", "heads", "mlp_ratio"))
    assert isinstance(network, KPRPE)
    assert params["pos_embed"].shape == (1, 196, 512)
    assert params["keypoint_linear"]["kernel"].shape == (10, SIDE**2 * heads * depth)
    assert params[f"blocks_{depth - 1}"]["mlp"]["fc1"]["kernel"].shape == (512, 512 * ratio)
    assert "mask_token" not in params


def test_heads_divide_the_dim():
    with pytest.raises(UserError, match=r"model.kprpe.heads=3: must divide vit_kprpe_small's 16"):
        small(heads=3)
