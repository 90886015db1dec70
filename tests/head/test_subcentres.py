"""Dominant prototypes, and the images that are far from them."""

import numpy as np
import pytest

from uniface_jax.head.subcentres import dominant


@pytest.mark.parametrize("images", [0, 5, 9000])
def test_dominant_is_what_most_images_are_nearest_to(images):
    """Against a loop; more images than are taken at a time."""
    rng = np.random.default_rng(3)
    prototypes = rng.standard_normal((7, 3, 4))
    features, labels = rng.standard_normal((images, 4)), rng.integers(0, 6, images)
    found = dominant(features, labels, prototypes)

    def angle(a, b):
        return np.degrees(np.arccos(a @ b / np.linalg.norm(a) / np.linalg.norm(b)))

    for number in range(7):
        own = features[labels == number]
        nearest = [np.argmin([angle(x, p) for p in prototypes[number]]) for x in own[:200]]
        if len(own) <= 200:
            assert found.center[number] == (np.bincount(nearest).argmax() if len(own) else 0)
    for index in range(min(images, 100)):
        expected = angle(features[index], prototypes[labels[index], found.center[labels[index]]])
        assert found.degrees[index] == pytest.approx(expected)


def test_one_prototype_a_class_and_a_zero_feature():
    found = dominant(np.array([[0.0, 0.0], [0.0, 2.0]]), np.array([0, 0]), np.array([[1.0, 0.0]]))
    np.testing.assert_allclose(found.degrees, [90, 90])
    np.testing.assert_array_equal(found.center, [0])
