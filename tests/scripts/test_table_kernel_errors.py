"""The table of the kernels' errors has the networks' shapes, and stated bounds hold for them."""

import bench_conv
import numpy as np
import pytest
import table_kernel_errors as script

# Of the largest number, and of the root mean square.
BOUNDS = (2e-6, 1e-6)
BOUNDS_BY_FOUR = (5e-6, 2e-6)  # where Winograd's tiles are of 4x4 outputs

# Of every kind that networks have: of this side, inputs and outputs, groups, taps, stride, padding.
BY_FOUR = script.Convolution(14, 256, 256, 1, 3, 1, 1)
SHAPES = (
    BY_FOUR,
    script.Convolution(14, 256, 512, 1, 3, 2, 1),
    script.Convolution(28, 128, 128, 1, 2, 2, 0),
    script.Convolution(28, 128, 256, 1, 1, 1, 0),
    script.Convolution(28, 256, 256, 256, 3, 2, 1),
    script.Convolution(14, 256, 256, 256, 3, 1, 1),
    script.Convolution(28, 128, 128, 64, 3, 1, 1),
    script.SelfAttention(144, 8, 32),
)


def test_an_error_is_a_share_of_the_numbers():
    square, largest = script.errors(np.float32([1, 2, 5]), np.float64([1, 2, -4]))
    assert largest == 9 / 4
    assert square == pytest.approx(9 / np.sqrt(21))


@pytest.mark.slow
def test_shapes_are_the_networks():
    found = {
        (shape.side, shape.inputs, shape.outputs, shape.taps, shape.stride, shape.padding)
        for shape in script.convolutions("lresnet18")
    }
    assert found == {tuple(shape[:6]) for shape in bench_conv.SHAPES}
    (whole, masked) = sorted(script.self_attentions("vit_t"), reverse=True)
    assert (whole.tokens, masked.tokens, whole.heads, whole.size) == (144, 129, 8, 32)


@pytest.mark.slow
def test_errors_are_within_the_bounds(kernels):
    shapes = {shape: ["a network"] for shape in SHAPES}
    for row in script.table(shapes, batch=2):
        assert row.kernel, row.shape
        most, most_square = BOUNDS_BY_FOUR if row.shape == str(BY_FOUR) else BOUNDS
        for name, (square, largest) in row.kernel.items():
            assert largest < most, (row.shape, name, largest)
            assert square < most_square, (row.shape, name, square)
