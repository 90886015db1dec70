"""Convolutions in float64 that take seconds."""

import itertools

import jax.numpy as jnp

MOST_NUMBERS = 1 << 24  # of the taps beside each other, 128 MB: one product is faster than nine


def sum_of_products(x, kernel, strides, padding, dimension_numbers, feature_group_count=1):
    """A convolution from its definition: a product for each tap of the kernel, or one of all.

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

    def of_groups(tap):
        # One group's outputs lie behind the other's.
        by_group = reached_by(tap).reshape(*x.shape[:1], *size, feature_group_count, -1)
        outputs = kernel[tap].reshape(kernel.shape[2], feature_group_count, -1)
        return jnp.einsum("bhwgc,cgo->bhwgo", by_group, outputs).reshape(*by_group.shape[:3], -1)

    every = list(itertools.product(*map(range, taps)))
    if feature_group_count > 1:
        return sum(map(of_groups, every))
    rows = [reached_by(tap).reshape(-1, x.shape[3]) for tap in every]
    if len(every) * rows[0].size <= MOST_NUMBERS:
        y = jnp.concatenate(rows, 1) @ kernel.reshape(-1, kernel.shape[3])
    else:
        y = sum(part @ kernel[tap] for part, tap in zip(rows, every, strict=True))
    return y.reshape(-1, *size, kernel.shape[3])
