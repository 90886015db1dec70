"""Operations and bytes of a step, against counts by hand."""

import jax
import jax.numpy as jnp
import pytest

from uniface_jax import config as configs
from uniface_jax.plan import program, work


def flops(function, *shapes):
    arguments = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    return work.count(jax.make_jaxpr(function)(*arguments).jaxpr, 1).flops


def conv(x, kernel, stride=1, padding=0):
    return jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), [(padding, padding)] * 2,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )  # fmt: skip


def test_products():
    assert flops(jnp.matmul, (3, 5), (5, 7)) == 2 * 3 * 5 * 7
    assert flops(lambda a, b: jnp.einsum("bik,bkj->bij", a, b), (2, 3, 5), (2, 5, 7)) == 420


def test_a_loop_counts_as_often_as_it_runs():
    def repeated(x):
        return jax.lax.fori_loop(0, 9, lambda _, y: y @ y, x)

    assert flops(repeated, (4, 4)) == 9 * 2 * 4**3
    assert flops(jax.jit(repeated), (4, 4)) == 9 * 2 * 4**3


def test_a_choice_by_platform_is_the_accelerators():
    def product(x):
        return jax.lax.platform_dependent(x, cpu=lambda x: x @ x @ x, default=lambda x: x @ x)

    assert flops(product, (4, 4)) == 2 * 4**3
    assert (
        flops(lambda x: jax.lax.cond(x[0, 0] > 0, lambda y: y, lambda y: y @ y, x), (4, 4)) == 128
    )


def test_a_convolution_without_padding():
    assert flops(conv, (2, 6, 6, 3), (3, 3, 3, 5)) == 2 * (2 * 4 * 4) * 5 * (3 * 3 * 3)


def test_padding_is_no_work():
    inside = sum((3 if 0 < i < 5 else 2) for i in range(6)) ** 2  # taps that meet the image
    found = flops(lambda x, k: conv(x, k, padding=1), (1, 6, 6, 3), (3, 3, 3, 5))
    assert found == 2 * inside * 3 * 5


@pytest.mark.parametrize(
    ("kernel", "stride", "padding"), [(3, 1, 1), (2, 2, 0), (3, 2, 1), (1, 2, 0)]
)
def test_each_gradient_of_a_convolution_costs_as_much_as_the_convolution(kernel, stride, padding):
    def forward(x, k):
        return conv(x, k, stride, padding)

    def backward(x, k):
        out, pull = jax.vjp(forward, x, k)
        return pull(out)

    shapes = (2, 8, 8, 3), (kernel, kernel, 3, 5)
    assert flops(backward, *shapes) == 3 * flops(forward, *shapes)


def test_collectives():
    def step(x):
        total = jax.lax.psum(x, "devices")
        every = jax.lax.all_gather(x, "devices", tiled=True)
        return total, jax.lax.psum_scatter(every, "devices", tiled=True)

    make = jax.make_jaxpr(step, axis_env=[("devices", 4)])
    jaxpr = make(jax.ShapeDtypeStruct((8, 5), jnp.float32)).jaxpr
    whole = 4 * 8 * 5 * 4  # of the gathered array
    assert work.count(jaxpr, 4).sent == 0.75 * (2 * 160 + whole + whole)


@pytest.mark.parametrize("micro", [1, 2])
def test_a_training_step(micro):
    """Compare with what the head and the network's gradients are known to send."""
    config = configs.base()
    config.model.update(name="lresnet18", width=16, embedding_size=16, stem_stride=2)
    config.model.stage_sizes = (1, 1)
    config.batch_size, config.micro_batches = 64, micro

    def counted(classes, devices):
        recipe = program.planned(config, 64_000, classes)
        return work.count(program.trace(recipe, devices), devices)

    few, many = counted(800, 4), counted(8800, 4)
    head = 3 * 2 * 64 * (8000 // 4) * 16  # three products a shard, over the whole batch
    assert many.flops - few.flops == pytest.approx(head, rel=0.05)
    recipe = program.planned(config, 64_000, 800)
    network, state = recipe.network, recipe.shapes
    variables = {"params": state.weights.network, "batch_stats": state.batch_stats}
    images = jax.ShapeDtypeStruct((16, 112, 112, 3), jnp.float32)
    forward = work.count(
        jax.make_jaxpr(lambda v, x: network.apply(v, x, train=False))(variables, images).jaxpr, 1
    ).flops
    of_network = few.flops - head / 10  # without the gradient by the images
    assert 2.8 * forward < of_network < 3 * forward
    parameters = sum(leaf.size for leaf in jax.tree.leaves(state.weights.network))
    assert few.sent == pytest.approx(4 * 2 * 0.75 * parameters, rel=0.25)
    assert counted(800, 1).sent == 0
