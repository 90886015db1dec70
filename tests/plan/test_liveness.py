"""How long arrays live in small programs, of which it is plain what a compiler writes."""

from functools import partial

import jax
import jax.numpy as jnp
import pytest

from uniface_jax.plan import liveness

ROWS, WIDTH = 256, 128
ARRAY = 4 * ROWS * WIDTH  # bytes of x below
NUMBERS = 64  # bytes at most of single ones
X, SQUARE = jnp.zeros((ROWS, WIDTH)), jnp.zeros((WIDTH, WIDTH))


def working(function, *arguments, compiler=liveness.GPU):
    return liveness.working_bytes(jax.make_jaxpr(function)(*arguments).jaxpr, compiler)


def test_what_is_done_by_element_is_in_no_memory():
    assert working(lambda x: jnp.sum(jnp.tanh(x * 2 + 1)), X) == 0


def test_a_product_is_written_and_lives_until_it_is_read():
    assert working(lambda x, w: jnp.sum(jnp.tanh(x @ w)), X, SQUARE) == ARRAY
    # The factor that is no argument, and the product beside it; not the first one any more.
    assert working(lambda x, w: jnp.sum(jnp.tanh(jnp.tanh(x) @ w) @ w), X, SQUARE) == 2 * ARRAY
    assert working(lambda x, w: (x @ w).reshape(-1).sum(), X, SQUARE) == ARRAY


def test_what_the_gradient_needs_is_kept():
    def loss(x, w):
        for _ in range(5):
            x = jnp.tanh(x @ w)
        return jnp.sum(x)

    # Of five products with tanh the tanh is kept, which the next product reads.
    found = working(jax.grad(loss, 1), X, SQUARE)
    assert 5 * ARRAY <= found <= 7.5 * ARRAY


def test_two_maps_are_added_once_for_several_readers():
    def twice(x, y, w):
        total = x @ w + y @ w
        return jnp.sum(jnp.tanh(total), 0), jnp.sum(total**2, 1)

    def again(x, w):
        product = x @ w
        return jnp.sum(jnp.tanh(product), 0), jnp.sum(product**2, 1)

    assert working(twice, X, X, SQUARE) == 2 * ARRAY  # written over one of the two
    assert working(again, X, SQUARE) == ARRAY


def test_a_loop_needs_what_its_body_does_and_no_result_twice():
    def steps(x, w):
        return jax.lax.scan(lambda x, _: (jnp.tanh(x @ w), None), x, length=9)[0]

    assert working(steps, X, SQUARE) == ARRAY
    assert working(lambda x, w: jnp.sum(steps(x + 1, w)), X, SQUARE) == 2 * ARRAY


def test_a_checkpoint_keeps_less():
    def loss(block, x, ws):
        for w in ws:
            x = block(x, w)
        return jnp.sum(x)

    def block(x, w):
        return jnp.tanh(jnp.tanh(x @ w) @ w)

    ws = [SQUARE] * 8
    plain, less = (
        working(jax.grad(lambda ws, b=b: loss(b, X, ws)), ws)
        for b in (block, jax.checkpoint(block))
    )
    assert less < 0.75 * plain


def test_a_loop_of_one_turn_is_none():
    def summed(length, x, w):
        total, _ = jax.lax.scan(lambda t, _: (t + x @ w, None), jnp.zeros_like(x), length=length)
        return jnp.tanh(total).sum()

    once, twice = (working(partial(summed, length), X, SQUARE) for length in (1, 2))
    assert once == pytest.approx(ARRAY, abs=NUMBERS)  # the product alone, and no sum beside it
    assert twice == pytest.approx(2 * ARRAY, abs=NUMBERS)


def test_products_of_a_tpu_make_their_factors():
    def twice(x, w):
        product = x @ w
        return (jnp.tanh(product) @ w).sum() * product.sum()

    tpu = liveness.Compiler(factors=True)
    assert working(twice, X, SQUARE) == 3 * ARRAY
    found = working(twice, X, SQUARE, compiler=tpu)
    assert found == pytest.approx(2 * ARRAY, abs=NUMBERS)  # the tanh is made as it is read


def test_a_slot_is_not_divided():
    def first_large_then_two_small(x, w):
        small = w @ w
        return (x @ w).sum() * (small @ w).sum() * (w @ small).sum()

    def at_most(**settings):
        compiler = liveness.Compiler(**settings)
        found = working(first_large_then_two_small, X, SQUARE, compiler=compiler)
        return pytest.approx(found, abs=NUMBERS)

    small = ARRAY // 2
    assert at_most() == ARRAY + small  # one of the small ones lives beside the large one
    assert at_most(slots=True) == ARRAY + small
    assert at_most(slots=True, on_chip=ARRAY) == small  # which lives longest
    assert at_most(slots=True, on_chip=ARRAY + small + NUMBERS) == 0
    # Tables: of two arguments and of four arrays that are no numbers.
    assert at_most(slots=True, table=10**6) == ARRAY + small + 6 * 10**6


def test_a_convolution_of_groups_has_its_maps_twice():
    def convolved(x, kernel, groups):
        x = jax.lax.conv_general_dilated(
            jnp.tanh(x @ x.mT), kernel, (1, 1), "SAME", feature_group_count=groups,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )  # fmt: skip
        return x.sum()

    tpu = liveness.Compiler(factors=True, grouped=liveness.images_in_lanes)
    images, size = 64, 8
    x, each = jnp.zeros((images, size, size, size)), 4 * images * size**3
    for groups in (1, 2, size):
        kernel = jnp.zeros((3, 3, size // groups, size))
        found = working(partial(convolved, groups=groups), x, kernel, compiler=tpu)
        # 64 images in 128 lanes: what is taken twice as large, what is made so beside itself.
        copies = liveness.images_in_lanes(kernel) + 3 * each if groups == 2 else 0
        assert found == 2 * each + copies, groups


@pytest.mark.parametrize(
    ("shape", "dtype", "padded"),
    [
        ((64, 112, 112, 64), "float32", 2),  # channels in half of the lanes, as XLA has them
        ((256, 129, 512), "bfloat16", 1),  # images, not tokens, in sublanes
        ((256, 8, 129, 129), "float32", 256 / 129),
        ((64, 112, 112, 3), "bfloat16", 2 * 4 / 3),  # images in lanes
        ((513,), "float32", 1),
    ],
)
def test_a_tpu_pads_to_its_tiles(shape, dtype, padded):
    array = jax.ShapeDtypeStruct(shape, dtype)
    found = liveness.tiled_bytes(array)
    assert found == pytest.approx(padded * liveness.plain_bytes(array))
