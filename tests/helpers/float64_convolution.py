"""Convolutions in float64 that take seconds."""

import itertools

import jax.numpy as jnp


def sum_of_products(x, kernel, strides, padding, dimension_numbers):
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

    return sum(reached_by(tap) @ kernel[tap] for tap in itertools.product(*map(range, taps)))
