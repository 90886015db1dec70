"""Seeded permutations and random numbers, computed element by element: any position at once.

The permutation is a Feistel network over the smallest power of four that holds N, with cycle
walking: values that leave 0..N-1 are permuted again until they come back (Black & Rogaway, "Ciphers
with arbitrary finite domains", CT-RSA 2002). No table of N entries, nothing to replay on resume,
and no dependence on a library's version.
"""

import numpy as np
from numpy.typing import NDArray

Words = NDArray[np.uint64]

_ROUNDS = 8
_GOLDEN_RATIO = np.uint64(0x9E3779B97F4A7C15)


def shuffled(
    positions: np.ndarray, size: int | np.ndarray, seed: int, epochs: np.ndarray
) -> np.ndarray:
    """Return the elements at `positions` of the permutations of 0..size-1 given by (seed, epochs).

    For one (seed, epoch) it is a bijection of 0..size-1.

    Args:
        positions: integers of any shape, in 0..size-1.
        size: N, 1..2^52, or one for each position.
        seed: of the run.
        epochs: integers of the same shape.

    Returns:
        int64 of that shape.

    Example:
        >>> epoch = shuffled(np.arange(5), 5, seed=0, epochs=np.zeros(5, np.int64))
        >>> sorted(epoch.tolist())
        [0, 1, 2, 3, 4]
    """
    last = np.asarray(size, np.int64) - 1
    if ((positions < 0) | (positions > last)).any():
        raise ValueError(f"positions must lie in 0..{last}")
    bits = np.frexp(last.astype(np.float64))[1].astype(np.int64)  # of `last`, which float64 holds
    half = np.maximum(1, (bits + 1) // 2).astype(np.uint64)
    mask = (np.uint64(1) << half) - np.uint64(1)
    if half.ndim:
        half, mask = (np.broadcast_to(each, positions.shape) for each in (half, mask))
    keys = _epoch_keys(positions, seed, epochs)
    values = positions.astype(np.uint64)
    outside = np.ones(positions.shape, bool)
    while outside.any():
        halves, masks = (each[outside] if each.ndim else each for each in (half, mask))
        values[outside] = _feistel(values[outside], keys[outside], halves, masks)
        outside = values > last.astype(np.uint64)
    return values.astype(np.int64)


def place_of(elements: np.ndarray, size: int, seed: int, epochs: np.ndarray) -> np.ndarray:
    """Return the positions at which `shuffled` has `elements`: its inverse, int64.

    elements: integers in 0..size-1 of any shape. size, seed, epochs: as for `shuffled`.

    Example:
        >>> epochs = np.full(5, 3)
        >>> place_of(shuffled(np.arange(5), 5, 0, epochs), 5, 0, epochs)
        array([0, 1, 2, 3, 4])
    """
    half = np.uint64(max(1, (int(size - 1).bit_length() + 1) // 2))
    mask = (np.uint64(1) << half) - np.uint64(1)
    keys = _epoch_keys(elements, seed, epochs)
    values = elements.astype(np.uint64)
    outside = np.ones(elements.shape, bool)
    while outside.any():
        values[outside] = _feistel_inverse(values[outside], keys[outside], half, mask)
        outside = values >= np.uint64(size)
    return values.astype(np.int64)


def uniforms(samples: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Return random numbers of their own for each sample: float32 [..., count], in 0 ≤ u < 1.

    A sample's numbers depend on (seed, sample) alone, and more of them begin with the same ones.
    They are unrelated to the permutations of the same seed.

    samples: int64 of any shape.
    """
    words = np.full(samples.shape, seed & 0xFFFFFFFFFFFFFFFF, np.uint64)
    keys = _mix(_mix(words ^ _GOLDEN_RATIO) ^ samples.astype(np.uint64))
    steps = np.arange(1, count + 1, dtype=np.uint64) * _GOLDEN_RATIO
    bits = _mix(keys[..., None] + steps) >> np.uint64(40)
    return bits.astype(np.float32) * np.float32(2.0**-24)


def _feistel(values: Words, keys: Words, half: Words, mask: Words) -> Words:
    """Return the values after the network's rounds, halves of `half` bits."""
    left, right = values >> half, values & mask
    for _ in range(_ROUNDS):
        keys = keys + _GOLDEN_RATIO
        left, right = right, left ^ (_mix(right ^ keys) & mask)
    return (left << half) | right


def _feistel_inverse(values: Words, keys: Words, half: np.uint64, mask: np.uint64) -> Words:
    """Return the values before the network's rounds."""
    left, right = values >> half, values & mask
    rounds = [keys + _GOLDEN_RATIO]
    while len(rounds) < _ROUNDS:
        rounds.append(rounds[-1] + _GOLDEN_RATIO)
    for each in reversed(rounds):
        left, right = right ^ (_mix(left ^ each) & mask), left
    return (left << half) | right


def _epoch_keys(like: np.ndarray, seed: int, epochs: np.ndarray) -> Words:
    """Return the keys of the permutations of (seed, epochs), of the shape of `like`."""
    seed_word = np.full(like.shape, seed & 0xFFFFFFFFFFFFFFFF, np.uint64)
    return _mix(_mix(seed_word + _GOLDEN_RATIO) ^ epochs.astype(np.uint64))


def _mix(words: Words) -> Words:
    """Return SplitMix64's finalizer: uint64 to uint64, every input bit reaches every output bit."""
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))
