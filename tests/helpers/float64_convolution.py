"""Convolutions in float64 that take seconds."""

import itertools

import jax.numpy as jnp


def sum_of_products(x, kernel, strides, padding, dimension_numbers, feature_group_count=1):
    """A convolution from its definition: one product for each tap of the kernel.

    XLA's CPU backend has loops without any blocking for convolutions in float64, which took
    minutes for the golden network. Its products in float64 are fast.
    """
    assert dimension_numbers == ("NHWC", "HWIO", "NHWC")
    x = jnp.pad(x, [(0, 0), *padding, (0, 0)])
    taps = kernel.shape[:2]
    size = [(n - k) // s + 1 for n, k, s in zip(x.shape[1:3], taps, strides, strict=True)]

    def reached_by(tap):
        rows, columns = (
            slice(k, k + (n - 1) * s + 1, s) for k, n, s in zip(tap, size, strides, strict=True)
        )
        return x[:, rows, columns]

    def product(tap):
        if feature_group_count == 1:
            return reached_by(tap) @ kernel[tap]
        # One group's outputs lie behind the other's.
        by_group = reached_by(tap).reshape(*x.shape[:1], *size, feature_group_count, -1)
        outputs = kernel[tap].reshape(kernel.shape[2], feature_group_count, -1)
        return jnp.einsum("bhwgc,cgo->bhwgo", by_group, outputs).reshape(*by_group.shape[:3], -1)

    return sum(map(product, itertools.product(*map(range, taps))))
