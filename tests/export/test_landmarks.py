"""Exports of a network that takes landmarks: the template's are baked in."""

import jax
import numpy as np
import pytest

from uniface_jax import models
from uniface_jax.data.formats.landmarks import TEMPLATE, from_pixels
from uniface_jax.export.formats import FORMATS, write_format
from uniface_jax.export.onnx.from_jaxpr import to_onnx
from uniface_jax.export.verify import onnx_runner, relative
from uniface_jax.inference.mirror import mirror_sum

SIZES = dict(dim=16, depth=2, heads=2, patch=28, mlp_ratio=2)


@pytest.fixture(scope="module")
def trained():
    """A small network that feels where landmarks are, and its variables."""
    network = models.create("vit_kprpe_small", embedding_size=8, **SIZES)
    params, statistics = jax.jit(lambda: models.initialize(network, jax.random.key(1)))()
    params["keypoint_linear"]["kernel"] = 9 * jax.random.normal(jax.random.key(2), (10, 2 * 2 * 49))
    return network, {"params": params, "batch_stats": statistics}


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMATS)
def test_the_template_is_baked_into_every_format(name, trained, tmp_path):
    network, variables = trained
    baked = network.clone(landmarks="template")
    written = write_format(lambda x: models.features(baked, variables, x), tmp_path / "model", name)
    assert max(written.differences.values()) <= 1e-5


@pytest.mark.parametrize("opset", [11, 17])
def test_the_template_is_baked_into_onnx(opset, trained):
    network, variables = trained
    baked = network.clone(landmarks="template")
    model = to_onnx(lambda x: models.features(baked, variables, x), opset=opset)
    assert [entry.name for entry in model.graph.input] == ["input"]
    images = np.random.default_rng(0).uniform(-1, 1, (3, 112, 112, 3)).astype(np.float32)
    everywhere = np.broadcast_to(from_pixels(TEMPLATE), (3, 5, 2))
    features = jax.jit(mirror_sum(lambda x, points: models.features(network, variables, x, points)))
    # Of the mirrored image the template's points too, which are not quite its own mirror image.
    plain = jax.jit(lambda x: models.features(baked, variables, x))
    expected = plain(images) + plain(images[:, :, ::-1])
    assert relative(onnx_runner(model)(images), np.asarray(expected)) < 1e-5
    assert relative(np.asarray(features(images, everywhere)), np.asarray(expected)) < 0.02
