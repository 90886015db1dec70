"""Operations of products, read from texts as XLA's compilers write them, against work.py's."""

import jax
import jax.numpy as jnp
import pytest

from uniface_jax.plan import kernels, products, work

IMAGES, KERNEL, RESULT = (2, 8, 6, 4), (5, 3, 3, 4), (2, 4, 3, 5)  # b01f, o01i
CONVOLUTION = "window={size=3x3 stride=2x2 pad=1_1x1_1}, dim_labels=b01f_o01i->b01f"
ROWS, COLUMNS = 4 * 3 - 1, 3 * 3 - 1  # positions that meet the image: all but those before it
CONVOLVED = 2 * (2 * 5) * 4 * ROWS * COLUMNS
GEMM = '"dot_dimension_numbers":{"lhs_contracting_dimensions":["0","2"],"rhs_contracting'
ATTENTION = (
    '"intermediate_tensor_shape":{"element_type":"BF16","dimensions":["2","8","129","129"],'
    '"tuple_shapes":[]}'
)


def library(target, attributes):
    return f'{attributes}, custom_call_target="{target}"'


@pytest.mark.parametrize(
    ("opcode", "operands", "result", "attributes", "expected"),
    [
        ("convolution", [IMAGES, KERNEL], RESULT, CONVOLUTION, CONVOLVED),
        *(
            ("custom-call", operands, result, library(target, CONVOLUTION), CONVOLVED)
            for target, operands, result in (
                ("__cudnn$convForward", [IMAGES, KERNEL], RESULT),
                ("__cudnn$convBiasActivationForward", [IMAGES, KERNEL, (5,)], RESULT),
                ("__cudnn$convBackwardInput", [RESULT, KERNEL], IMAGES),
                ("__cudnn$convBackwardFilter", [IMAGES, RESULT], KERNEL),
            )
        ),
        # A TPU's product is a convolution without a window.
        ("convolution", [(7, 3), (3, 5)], (7, 5), "dim_labels=bf_io->bf", 2 * 7 * 3 * 5),
        # One of many, in which the many are a dilated axis whose other positions are zeros.
        (
            "convolution", [(6, 7, 3), (6, 3, 5)], (6, 7, 5),
            "window={size=6 stride=5 lhs_dilate=6}, dim_labels=0bf_0io->0bf", 2 * 6 * 7 * 3 * 5,
        ),
        ("dot", [(7, 3), (3, 5)], (7, 5), "lhs_contracting_dims={1}, rhs_contr", 2 * 7 * 3 * 5),
        ("custom-call", [(2, 7, 3)], (7, 5), library("__cublas$lt$matmul", GEMM), 2 * 6 * 35),
        (
            "custom-call", [(2, 129, 8, 32)], (2, 8, 129, 32),
            library("__cudnn$fmhaSoftmax", ATTENTION), 2 * (2 * 2 * 8 * 129 * 129 * 32),
        ),
        (
            "custom-call", [(2, 129, 8, 32)], (2, 8, 129, 32),
            library("__cudnn$fmhaSoftmaxBackward", ATTENTION), 5 * (2 * 2 * 8 * 129 * 129 * 32),
        ),
        ("custom-call", [(2, 7)], (7,), library("tpu_custom_call", ""), 0),
        ("custom-call", [(2, 7)], (7,), library("__cublas$lt$matmul", ""), 0),
        ("add", [(2, 7), (2, 7)], (2, 7), "", 0),
    ],
)  # fmt: skip
def test_operations_of_an_instruction(opcode, operands, result, attributes, expected):
    assert products.flops(opcode, operands, result, attributes) == expected


def test_a_compiled_step_of_products_has_what_its_trace_has():
    def loss(w, matrix, x):
        return jnp.sum(jnp.tanh(jnp.tanh(x @ matrix) @ w))

    x, matrix, w = jnp.ones((16, 64)), jnp.ones((64, 32)), jnp.ones((32, 8))
    step = jax.grad(loss, (0, 1))
    traced = work.count(jax.make_jaxpr(step)(w, matrix, x).jaxpr, 1).flops
    found = kernels.kernels(jax.jit(step).lower(w, matrix, x).compile().as_text())
    assert kernels.by_kind(found)["product"].flops == traced > 0
