"""Features of templates: insightface's golden numbers, and the aggregation in plain words."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from uniface_jax.errors import UserError
from uniface_jax.evaluate.metrics.roc import roc
from uniface_jax.evaluate.metrics.verification import unit_pair_scores
from uniface_jax.evaluate.protocols.ijb.metrics import one_to_one_metrics
from uniface_jax.evaluate.protocols.ijb.templates import (
    image_features,
    template_features,
    template_rows,
)


def test_golden_templates_scores_and_tar(golden):
    file = golden("ijb")
    features = image_features(file["features"], file["features_flip"], file["face_score"])
    ids, templates = template_features(features, file["template"], file["media"])
    assert ids.tolist() == file["template_ids"].tolist()
    np.testing.assert_array_equal(templates, file["template_features"])
    first, second = (template_rows(ids, file[p], "pairs.txt") for p in ("p1", "p2"))
    scores = unit_pair_scores(templates, first, second)
    np.testing.assert_array_equal(scores, file["scores"])
    metrics = json.loads(json.dumps(one_to_one_metrics(roc(scores, file["label"] == 1))))
    assert [entry["far"] for entry in metrics["tar_at_far"]] == file["far_points"].tolist()
    assert [entry["nearest"]["tar"] for entry in metrics["tar_at_far"]] == file["tar"].tolist()
    assert metrics["same"] == file["label"].sum()


@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 2)), min_size=1, max_size=30),
    st.integers(0, 2**32 - 1),
)
def test_a_template_is_the_normalized_sum_of_the_means_of_its_media(rows, seed):
    templates, media = np.array(rows).T
    features = np.random.default_rng(seed).standard_normal((len(rows), 5)) + 0.1
    ids, found = template_features(features, templates, media)
    assert ids.tolist() == sorted(set(templates))
    for template, feature in zip(ids, found, strict=True):
        total = np.zeros(5)
        for medium in set(media[templates == template]):
            total += features[(templates == template) & (media == medium)].mean(axis=0)
        np.testing.assert_allclose(feature, total / np.linalg.norm(total), atol=1e-12)


def test_image_features_keep_the_dtype_and_weigh_by_the_detector():
    features = np.ones((2, 3), np.float32)
    found = image_features(features, 2 * features, np.array([0.5, 0.25]))
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, [[1.5] * 3, [0.75] * 3])
    np.testing.assert_array_equal(image_features(features, None, np.array([2, 3]))[:, 0], [2, 3])


def test_unusable_features_are_named():
    templates, media = np.array([7, 7, 9]), np.array([0, 1, 0])
    features = np.array([[1.0, 0], [-1, 0], [1, 1]])
    with pytest.raises(UserError, match="feature of template 7 is zero"):
        template_features(features, templates, media)
    features[2, 1] = np.nan
    with pytest.raises(UserError, match="feature of image 2 is not finite"):
        template_features(features, templates, media)


@pytest.mark.parametrize("wanted", [4, 1, 99])
def test_a_pair_of_an_unknown_template_names_its_line(wanted):
    with pytest.raises(UserError, match=rf"pairs\.txt: line 3: template {wanted} has no image"):
        template_rows(np.array([2, 3, 5]), np.array([2, 5, wanted, 3]), "pairs.txt")


@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3)), min_size=1, max_size=60),
    st.integers(0, 2**32 - 1),
    st.sampled_from([1, 7, 1 << 14]),
)
def test_templates_are_those_of_numpys_means_to_the_last_digit(rows, seed, images):
    """Insightface's loop, in its order of operations, whatever the size of a block."""
    templates, media = np.array(rows).T
    features = np.random.default_rng(seed).standard_normal((len(rows), 9), np.float32)
    patch = pytest.MonkeyPatch()
    patch.setattr("uniface_jax.evaluate.protocols.ijb.templates._BLOCK_IMAGES", images)
    ids, found = template_features(features, templates, media)
    patch.undo()
    for template, feature in zip(ids, found, strict=True):
        means = []
        for medium in np.unique(media[templates == template]):
            means.append(features[(templates == template) & (media == medium)].mean(axis=0))
        total = np.sum(means, axis=0).astype(float)
        expected = total / np.sqrt(np.einsum("d,d", total, total))
        np.testing.assert_array_equal(feature, expected)
