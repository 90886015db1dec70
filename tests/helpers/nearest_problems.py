"""Rows and queries for the kernel that finds candidates, and what it found in one order."""

import numpy as np

from uniface_jax.native import nearest


def unit(shape, seed=0):
    values = np.random.default_rng(seed).standard_normal(shape)
    return values / np.linalg.norm(values, axis=-1, keepdims=True)


def codes_of(units):
    codes, scales, errors = nearest.coded(units)
    return nearest.Codes(
        nearest.packed(codes),
        nearest.padded_to_blocks(scales, 0),
        nearest.padded_to_blocks(errors, np.nan),
    )


def as_pairs(found):
    return sorted(zip(found.queries.tolist(), found.rows.tolist(), strict=True))
