"""The extraction loop: order, static batches, decoding, wrong sizes; and loading a workdir."""

import numpy as np
import pytest

from uniface_jax.data.formats.images import encode_png
from uniface_jax.errors import UserError
from uniface_jax.inference import network
from uniface_jax.inference.extract import extract
from uniface_jax.inference.load import load_model


@pytest.fixture
def images():
    return list(np.random.default_rng(0).integers(0, 256, (7, 112, 112, 3), np.uint8))


def embed(batch):
    """Three features that tell the images apart and their mirror images too."""
    return np.stack(
        [batch[:, :, :56].mean((1, 2, 3)), batch[..., 0].mean((1, 2)), batch[:, 0, 0, 1]], axis=1
    )


@pytest.mark.parametrize("batch_size", [1, 3, 7, 10])
def test_every_image_gets_its_own_feature_from_batches_of_one_shape(images, batch_size):
    shapes = set()

    def watched(batch):
        shapes.add((batch.shape, str(batch.dtype)))
        return embed(batch)

    features = extract(watched, images, name="set", batch_size=batch_size, progress=False)
    np.testing.assert_array_equal(features, embed(np.stack(images)).astype(np.float32))
    assert shapes == {((batch_size, 112, 112, 3), "uint8")}
    assert features.dtype == np.float32


def test_encoded_images_are_decoded(images):
    encoded = [encode_png(image) for image in images]
    np.testing.assert_array_equal(
        extract(embed, encoded, name="set", batch_size=4), extract(embed, images, name="set")
    )


def test_a_wrong_size_names_the_image_and_the_aligner(images):
    images[4] = np.zeros((112, 92, 3), np.uint8)
    with pytest.raises(UserError, match=r"lfw: image 4 is 112x92x3 .*uniface_jax\.align"):
        extract(embed, [encode_png(image) for image in images], name="lfw", batch_size=2)
    with pytest.raises(UserError, match=r"lfw: pair 4 is 112x92x3"):
        extract(embed, [encode_png(image) for image in images], name="lfw", label="pair {}".format)


def test_an_image_that_does_not_decode_is_named(images):
    encoded = [encode_png(image) for image in images]
    encoded[2] = encoded[2][:5000]
    with pytest.raises(UserError, match="lfw: image 2: "):
        extract(embed, encoded, name="lfw")


def test_nothing_to_embed_is_refused(images):
    with pytest.raises(UserError, match="lfw: no images"):
        extract(embed, [], name="lfw")
    with pytest.raises(UserError, match="batch_size is 0"):
        extract(embed, images, name="lfw", batch_size=0)


def test_a_workdir_is_loaded_by_inference(tmp_path, monkeypatch, images):
    asked = []

    def load_network(path):
        asked.append(path)
        return None, {}, {"step": 40, "digest": "abc", "workdir": tmp_path}

    def make_embed(network, mirror=True):
        return lambda variables, images: embed(images)

    monkeypatch.setattr(network, "load_network", load_network)
    monkeypatch.setattr(network.reading, "read_quality", lambda path, weights: None)
    monkeypatch.setattr(network, "make_embed", make_embed)
    model = load_model(tmp_path)
    assert model.embed_apart(np.stack(images)).shape == (7, 6)
    assert load_model(tmp_path, mirror=False).plain is None
    assert asked == [tmp_path, tmp_path]
    assert (model.name, model.hash) == (tmp_path.name, "abc")
    assert "step 40" in model.description
    np.testing.assert_array_equal(model.embed(np.stack(images)), embed(np.stack(images)))
    with pytest.raises(UserError, match="input_scale=raw"):
        load_model(tmp_path, input_scale="raw")
