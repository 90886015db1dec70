"""Simulated wrong labels: how many, the same anywhere, and each class as large as before."""

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.batches import take
from uniface_jax.data.input.label_noise import NoisyLabels
from uniface_jax.data.input.shuffle import place_of, shuffled
from uniface_jax.data.sources.synthetic import SyntheticSource
from uniface_jax.errors import UserError


@given(st.integers(1, 300), st.integers(0, 2**40), st.integers(0, 2**62))
def test_places_are_the_inverse_of_the_permutation(size, seed, epoch):
    epochs = np.full(size, epoch)
    elements = shuffled(np.arange(size), size, seed, epochs)
    np.testing.assert_array_equal(place_of(elements, size, seed, epochs), np.arange(size))


@given(st.integers(2, 60), st.floats(0.1, 1), st.integers(0, 2**31))
def test_labels_are_exchanged_among_the_chosen_images_alone(images, share, seed):
    clean = SyntheticSource(images, images)  # an image a class: every exchange shows
    if round(share * images) < 2:
        return
    noisy = pickle.loads(pickle.dumps(NoisyLabels(clean, share, seed)))
    indices = np.arange(images)
    labels = noisy.classes(indices)
    assert sorted(labels.tolist()) == indices.tolist()
    assert np.count_nonzero(labels != indices) == noisy.noisy == round(share * images)
    assert [noisy[i].label for i in range(images)] == labels.tolist()
    np.testing.assert_array_equal(noisy.classes(indices[::-2]), labels[::-2])


def test_noise_changes_the_labels_of_batches_and_nothing_else():
    clean = SyntheticSource(10, 50)
    noisy = NoisyLabels(clean, 0.4, 1)
    before, after = take(clean, 4), take(noisy, 4, kind="processes", workers=1)
    for one, other in zip(before, after, strict=True):
        np.testing.assert_array_equal(one["image"], other["image"])
        np.testing.assert_array_equal(one["index"], other["index"])
        np.testing.assert_array_equal(other["label"], noisy.classes(other["index"]))
    wrong = np.mean(noisy.classes(np.arange(50)) != clean.classes(np.arange(50)))
    assert 0.2 < wrong <= 0.4
    other = NoisyLabels(clean, 0.4, 2)
    assert (other.classes(np.arange(50)) != noisy.classes(np.arange(50))).any()
    assert other.fingerprint() != noisy.fingerprint() != clean.fingerprint()


def test_a_share_of_no_images():
    with pytest.raises(UserError, match=r"label_noise=0.02: 1 of the 50 images of synthetic:10:50"):
        NoisyLabels(SyntheticSource(10, 50), 0.02, 0)
