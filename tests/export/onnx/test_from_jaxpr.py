"""The exported graph: what it computes, in onnxruntime, and what it consists of."""

from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.examples import examples
from tests.helpers.trained_networks import SMALL, feature_function
from uniface_jax.errors import UserError
from uniface_jax.export.onnx.from_jaxpr import to_onnx
from uniface_jax.export.onnx.opsets import OPSETS
from uniface_jax.export.verify import compare


def operations(model):
    return Counter(node.op_type for node in model.graph.node)


def mirrored(function):
    return lambda images: function(images) + function(images[:, :, ::-1])


@pytest.mark.parametrize(
    ("name", "mirror", "overrides"),
    [
        ("lresnet18", True, {}),
        ("iresnet18", True, {"remat": True}),
        ("lresnet18", False, {"stem_stride": 1, "stage_sizes": (1, 2, 1, 1)}),
        ("iresnet18", False, {"stem_stride": 1, "stage_sizes": (1, 1, 2, 1)}),
    ],
)
def test_networks_agree_with_jax(name, mirror, overrides):
    function = feature_function(name, **{**SMALL, **overrides})
    model = to_onnx(function, mirror=mirror)
    onnx.checker.check_model(model, full_check=True)
    reference = mirrored(function) if mirror else function
    differences = compare(model, reference, (1, 3, 5))
    assert list(differences) == [1, 3, 5]
    assert max(differences.values()) <= 1e-5

    (image,), (features,) = model.graph.input, model.graph.output
    dims = [d.dim_param or d.dim_value for d in image.type.tensor_type.shape.dim]
    assert (image.name, dims) == ("input", ["batch", 3, 112, 112])
    dims = [d.dim_param or d.dim_value for d in features.type.tensor_type.shape.dim]
    assert (features.name, dims) == ("output", ["batch", 16])

    # Per block: the BN in front, two convolutions, PReLU and the sum; a shortcut in four of them.
    blocks = sum(overrides.get("stage_sizes", (2, 2, 2, 2)))
    expected = {
        "Conv": 1 + 2 * blocks + 4,
        "PRelu": 1 + blocks,
        "BatchNormalization": blocks,
        "Add": blocks + mirror,
        "Flatten": 1,
        "Gemm": 1,
    }
    if mirror:
        expected |= {"Slice": 1, "Concat": 1, "Split": 1}
    assert operations(model) == expected


def test_lresnet50_is_small():
    model = to_onnx(feature_function("lresnet50", width=4, embedding_size=8))
    assert len(model.graph.node) == 132
    assert operations(model)["Transpose"] == 0


@pytest.mark.parametrize("opset", [11, 13, 15, 18, OPSETS[-1]])
def test_opsets(opset):
    function = feature_function("lresnet18", **SMALL, stage_sizes=(1, 1, 1, 1))
    model = to_onnx(function, opset=opset, metadata={"uniface_jax.mirror": "1"})
    onnx.checker.check_model(model, full_check=True)
    assert model.opset_import[0].version == opset
    assert [(p.key, p.value) for p in model.metadata_props] == [("uniface_jax.mirror", "1")]
    if opset == 11:
        assert model.ir_version == 6
    assert max(compare(model, mirrored(function), (2,)).values()) <= 1e-5


def test_no_name_that_makes_the_server_feed_raw_pixels():
    names = [node.name for node in to_onnx(lambda x: _pool(-(x * 2.0) - 1.0)).graph.node]
    assert not any(name.startswith(("Sub", "_minus", "Mul", "_mul", "Div")) for name in names)
    assert len(set(names)) == len(names)


def _pool(x):
    """[B, 112, 112, 3] -> [B, 12]: a mean over quarters of the map as a strided convolution."""
    kernel = np.full((56, 56, 1, 3), 1 / 56**2, np.float32)
    x = jax.lax.conv_general_dilated(
        x, kernel, (56, 56), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=3,
    )  # fmt: skip
    return x.reshape(x.shape[0], -1) @ np.eye(12, dtype=np.float32)


def _moments(x):
    """[B, 112, 112, 3] -> [B, 3, 3]: products of all channels, summed over both axes at once."""
    return jnp.einsum("bhwc,bhwd->bcd", x, x)


@pytest.mark.parametrize("mirror", [True, False])
def test_flatten_keeps_jax_order(mirror):
    model = to_onnx(_pool, mirror=mirror)
    assert max(compare(model, mirrored(_pool) if mirror else _pool).values()) <= 1e-5


def test_a_shared_convolution_is_computed_once():
    kernel = np.random.default_rng(0).normal(0, 0.2, (3, 3, 3, 3)).astype(np.float32)
    scale = np.array([0.5, -1.5, 2.0], np.float32)[None, None, None]

    def function(x):
        y = jax.lax.conv_general_dilated(
            x, kernel, (2, 2), ((1, 1), (1, 1)), dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        y = y + (y * scale - 1.0)
        return y.reshape(y.shape[0], -1) @ np.ones((56 * 56 * 3, 2), np.float32) / 1e3

    model = to_onnx(function, mirror=False)
    expected = {"Conv": 1, "BatchNormalization": 1, "Add": 1, "Flatten": 1, "Gemm": 1}
    assert operations(model) == expected
    assert max(compare(model, function).values()) <= 1e-5


_LAYERS = st.lists(
    st.sampled_from(
        ["scale", "shift", "rsub", "divide", "conv", "valid", "group", "prelu", "skip"]
    ),
    max_size=9,
)


@examples(15)
@given(layers=_LAYERS, seed=st.integers(0, 99))
def test_any_chain_agrees_with_jax(layers, seed):
    def function(images):
        rng = np.random.default_rng(seed)

        def draw(*shape, spread=0.5):
            return rng.normal(0, spread, shape).astype(np.float32)

        def conv(x, kernel, stride, pad, groups=1):
            return jax.lax.conv_general_dilated(
                x, draw(kernel, kernel, x.shape[-1] // groups, 4), (stride, stride),
                ((pad, pad), (pad, pad)), dimension_numbers=("NHWC", "HWIO", "NHWC"),
                feature_group_count=groups,
            )  # fmt: skip

        x = earlier = conv(images, 8, 8, 0)
        for layer in layers:
            before = x
            match layer:
                case "scale":
                    x = x * draw(1, 1, 1, 4, spread=1.0)
                case "shift":
                    x = x + draw(1, 1, 1, 4)
                case "rsub":
                    x = draw(1, 1, 1, 4) - x
                case "divide":
                    x = x / (1.0 + draw(1, 1, 1, 4) ** 2)
                case "conv":
                    x = conv(x, 3, 1, 1)
                case "valid":
                    x = conv(x, 1, 1, 0)
                case "group":
                    x = conv(x, 3, 1, 1, groups=2)
                case "prelu":
                    x = jnp.where(x >= 0, x, draw(1, 1, 1, 4) * x)
                case "skip":
                    x = x + earlier
            earlier = before
        x = x.reshape(x.shape[0], -1)
        return x @ draw(x.shape[1], 5) + draw(1, 5)

    assert max(compare(to_onnx(function, mirror=False), function, (1, 2)).values()) <= 1e-5


@pytest.mark.parametrize(
    ("function", "named"),
    [
        (lambda x: _pool(jnp.sort(x, axis=1)), "'sort'"),
        (lambda x: _moments(x).reshape(1, 9), r"'dot_general' on \(Input, Input\)"),
        (lambda x: _pool(x[:, ::-1]), "'rev'"),
        (lambda x: _pool(x + jax.random.normal(jax.random.key(0), (1, 1, 1, 3))), "on constants"),
        (lambda x: x, r"float32\[1,112,112,3\]"),
        (lambda x: np.ones((1, 4), np.float32), r"float32\[1,4\]"),
        (lambda x: (_pool(x), _pool(x)), r"float32\[1,12\], float32\[1,12\]"),
    ],
)
def test_what_it_does_not_know_is_named(function, named):
    with pytest.raises(UserError, match=named) as caught:
        to_onnx(function)
    assert "\n" not in str(caught.value)


def test_opset_out_of_range():
    with pytest.raises(UserError, match=f"opset=10: allowed are 11 to {OPSETS[-1]}"):
        to_onnx(_pool, opset=10)
