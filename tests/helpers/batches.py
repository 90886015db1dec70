"""Streams of training batches, and their comparison."""

import itertools

import numpy as np

from uniface_jax.data.input.batches import DecoderPool, train_batches
from uniface_jax.data.input.sampler import Sampler

FULL = {"rotate": 10, "translate": 3, "scale": 0.1, "brightness": 0.2, "contrast": 0.2}


def stream(dataset, kind="auto", workers=None, augment=FULL, start_step=0, skip=False, **order):
    """Batches of 8 in the order of seed 5, but for what `order` replaces of Sampler."""
    sampler = Sampler(**{"batch_size": 8, "seed": 5, **order})
    pool = DecoderPool(kind, workers, skip)
    return train_batches(dataset, sampler, augment=augment, start_step=start_step, decoders=pool)


def take(dataset, count, **options):
    return list(itertools.islice(stream(dataset, **options), count))


def assert_equal(batches, others):
    assert len(batches) == len(others)
    for batch, other in zip(batches, others, strict=True):
        assert batch.keys() == other.keys() == {"image", "label", "index", "skipped"}
        for key in batch:
            np.testing.assert_array_equal(batch[key], other[key])
