"""Whatever networks from outside are made of: each operation against JAX, in onnxruntime."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import onnx
import pytest

from tests.export.onnx.test_from_jaxpr import operations
from uniface_jax.errors import UserError
from uniface_jax.export.onnx.from_jaxpr import DEFAULT_OPSET, to_onnx
from uniface_jax.export.verify import compare
from uniface_jax.models.vit import attend

OPSETS = (DEFAULT_OPSET, 13, 18)  # where operations take their axes in another way
ROWS = np.arange(7, dtype=np.float32)[None, None, :, None]
PLACES = np.linspace(0, 1, 294, dtype=np.float32).reshape(1, 49, 6)


class Net(nn.Module):
    """A small map [B, 7, 7, 6], what a test does with it, and a linear layer over all of it."""

    middle: object

    @nn.compact
    def __call__(self, images):
        x = nn.Conv(6, (16, 16), (16, 16), padding="VALID")(images)
        x = self.middle(x)
        return nn.Dense(5)(x.reshape(len(x), -1))


def function_of(middle):
    net = Net(middle)
    images = jax.ShapeDtypeStruct((1, 112, 112, 3), jnp.float32)
    leaves, tree = jax.tree.flatten(jax.eval_shape(net.init, jax.random.key(0), images))
    rng = np.random.default_rng(2)

    def draw(shape):
        kernel = rng.normal(0, np.prod(shape[:-1]) ** -0.5, shape) if len(shape) > 1 else 0
        return (kernel + rng.uniform(0, 0.3, shape)).astype(np.float32)

    drawn = [draw(leaf.shape) for leaf in leaves]
    return lambda x: net.apply(jax.tree.unflatten(tree, drawn), x)


def tokens(x):
    return x.reshape(len(x), 49, 6)


MAPS = {
    "products": lambda x: jax.lax.batch_matmul(x, x.swapaxes(2, 3)),
    "attention": lambda x: attend(
        *(x[..., k : k + 2].reshape(len(x), 49, 2, 1) for k in (0, 2, 4))
    ),
    "slice": lambda x: x[:, 1:6:2, :5],
    "relu": nn.relu,
    "relu6": lambda x: nn.relu6(4 * x),
    "leaky_relu": nn.leaky_relu,
    "elu": nn.elu,
    "gelu": nn.gelu,
    "gelu_erf": lambda x: nn.gelu(x, approximate=False),
    "silu": nn.silu,
    "sigmoid": nn.sigmoid,
    "tanh": nn.tanh,
    "softplus": nn.softplus,
    "hard_swish": nn.hard_swish,
    "mish": lambda x: x * jnp.tanh(nn.softplus(x)),
    "softmax": nn.softmax,
    "clip": lambda x: jnp.clip(x, -0.5, 0.25),
    "square": lambda x: x * x - x**3 + jnp.abs(x) / (1 + x**2),
    "where": lambda x: jnp.where(x < 0.1, jnp.exp(x), jnp.sqrt(jnp.abs(x))),
    "step": lambda x: x * (x >= 0.05),
    "equal": lambda x: jnp.where(nn.relu(x) == 0, 0.3, x) + jnp.where(x != 0, x, 1),
    "positions": lambda x: x * ROWS + x,
    "max_pool": lambda x: nn.max_pool(x, (3, 2), (2, 2), ((1, 1), (0, 1))),
    "avg_pool": lambda x: nn.avg_pool(x, (3, 3), (2, 2), "SAME"),
    "avg_pool_of_pixels": lambda x: nn.avg_pool(x, (3, 3), (2, 2), "SAME", False),
    "dilated": lambda x: nn.Conv(4, (3, 3), kernel_dilation=2)(x),
    "depthwise": lambda x: nn.Conv(6, (3, 3), feature_group_count=6)(x),
    "dense": lambda x: nn.Dense(4)(x),
    "pad": lambda x: nn.max_pool(jnp.pad(x, ((0, 0), (2, 1), (0, 3), (0, 0))), (2, 2), (1, 1)),
    "concat": lambda x: jnp.concatenate([x, nn.relu(x)], -1),
    "stack_rows": lambda x: jnp.concatenate([x, x[..., None].squeeze(-1) * 2], 1),
    "layer_norm": lambda x: nn.LayerNorm()(x),
    "layer_norm_of_map": lambda x: nn.LayerNorm(reduction_axes=(1, 2, 3))(x),
    "group_norm": lambda x: nn.GroupNorm(num_groups=2)(x),
    "instance_norm": lambda x: nn.InstanceNorm()(x),
    "rms_norm": lambda x: nn.RMSNorm()(x),
    "batch_norm": lambda x: nn.BatchNorm(use_running_average=True)(x),
    "weight_norm": lambda x: nn.WeightNorm(nn.Conv(4, (3, 3)))(x),
    "squeeze_excite": lambda x: x * nn.sigmoid(nn.Dense(6)(x.mean((1, 2), keepdims=True))),
    "shuffle": lambda x: x.reshape(len(x), 7, 7, 2, 3).swapaxes(3, 4).reshape(x.shape),
    "transposed": lambda x: x.transpose(0, 2, 3, 1) * 2,
    "expanded": lambda x: jnp.broadcast_to(x.max((1, 2), keepdims=True), x.shape),
    "least": lambda x: x + x.min(3)[..., None],
    "row_sums": lambda x: x.sum(1) + x.sum(2),
}
FEATURES = {
    "mean": lambda x: x.mean((1, 2)),
    "max": lambda x: x.max((1, 2)),
    "sum_of_all": lambda x: x.sum((1, 2, 3))[:, None],
    "tokens": lambda x: nn.Dense(4)(nn.LayerNorm()(nn.Dense(3)(tokens(x)))),
    "tokens_mixed": lambda x: nn.gelu(nn.Dense(4)(tokens(x).swapaxes(1, 2))),
    "tokens_mean": lambda x: (3 * tokens(x) + PLACES[:, :1]).mean(1),
    "tokens_prelu": lambda x: nn.PReLU()(tokens(x)),
    "flat_norm": lambda x: nn.LayerNorm()(x.reshape(len(x), -1)),
    "flat_prelu": lambda x: nn.leaky_relu(x.reshape(len(x), -1)),
    "unit": lambda x: x.mean((1, 2)) / jnp.linalg.norm(x.mean((1, 2)), axis=1, keepdims=True),
    "one_pixel": lambda x: nn.relu(x.mean((1, 2), keepdims=True)),
    "positional": lambda x: tokens(x) + PLACES,
}
ALL = {**MAPS, **FEATURES}


@pytest.mark.parametrize("name", ALL)
def test_agrees_with_jax(name):
    function = function_of(ALL[name])
    model = to_onnx(function, mirror=False)
    onnx.checker.check_model(model, full_check=True)
    assert max(compare(model, function, (1, 3)).values()) <= 1e-5
    dims = [d.dim_param or d.dim_value for d in model.graph.output[0].type.tensor_type.shape.dim]
    assert dims == ["batch", 5]


@pytest.mark.parametrize("name", ["layer_norm", "max_pool", "expanded", "clip", "pad", "tokens"])
@pytest.mark.parametrize("opset", OPSETS)
def test_opsets(name, opset):
    function = function_of(ALL[name])
    model = to_onnx(function, opset=opset, mirror=True)
    onnx.checker.check_model(model, full_check=True)

    def mirrored(x):
        return function(x) + function(x[:, :, ::-1])

    assert max(compare(model, mirrored, (2,)).values()) <= 1e-5


def test_a_plain_network_is_small():
    """Means leave no division, those over windows neither; the head is one product."""

    def middle(x):
        x = nn.relu(nn.Conv(4, (3, 3))(x))
        return nn.avg_pool(x, (3, 3), (2, 2)).mean((1, 2))

    found = operations(to_onnx(function_of(middle), mirror=False))
    assert found == {"Conv": 2, "Relu": 1, "AveragePool": 1, "ReduceSum": 1, "Gemm": 1}


@pytest.mark.parametrize(
    ("middle", "named"),
    [
        (lambda x: jnp.cumsum(x, 1), r"'cumsum' is not known to the ONNX writer; --route=jax2tf"),
        (
            lambda x: jnp.einsum("bhwc,bhwd->bcd", x, x),
            r"'dot_general' on \(Affine, Affine\) of .*; --route=j",
        ),
        (lambda x: nn.ConvTranspose(4, (2, 2), (2, 2))(x), r"'conv_general_dilated' on"),
        (lambda x: x - x.mean(0, keepdims=True), r"'reduce_sum' on"),
    ],
)
def test_what_it_does_not_know_is_named_with_a_way_out(middle, named):
    with pytest.raises(UserError, match=named) as caught:
        to_onnx(function_of(middle))
    assert "another --format may know it" in str(caught.value)
    assert "\n" not in str(caught.value)
