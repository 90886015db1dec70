"""A model is left on disk only if it computes what JAX does."""

import jax.numpy as jnp
import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from tests.helpers.trained_networks import SMALL, feature_function
from uniface_jax.errors import UserError
from uniface_jax.export import verify
from uniface_jax.export.onnx import verified
from uniface_jax.export.onnx.verified import export

FUNCTION = feature_function("lresnet18", **SMALL, stage_sizes=(1, 1, 1, 1))


def spoiled(model):
    """The model with one weight of its last layer changed by a thousandth."""
    tensor = next(t for t in model.graph.initializer if t.name == "gemm_0.weight")
    weights = numpy_helper.to_array(tensor).copy()
    weights[3] *= 1.001
    tensor.CopyFrom(numpy_helper.from_array(weights, tensor.name))
    return model


def test_export_reports_what_it_wrote(tmp_path):
    path = tmp_path / "new" / "model.onnx"
    written = export(FUNCTION, path, metadata={"step": "7"})
    assert [entry.name for entry in path.parent.iterdir()] == ["model.onnx"]
    model = onnx.load(path)
    assert written.bytes == path.stat().st_size
    assert written.nodes == len(model.graph.node) == 32
    sizes = [np.prod(tensor.dims) for tensor in model.graph.initializer]
    assert written.parameters == sum(sizes)
    assert set(written.differences) == {1, 3, 5}
    assert 0 < max(written.differences.values()) <= 1e-5


def test_a_wrong_model_is_refused_and_the_old_one_stays(tmp_path, monkeypatch):
    path = tmp_path / "model.onnx"
    path.write_bytes(b"earlier")
    right = verified.to_onnx
    monkeypatch.setattr(verified, "to_onnx", lambda *a, **k: spoiled(right(*a, **k)))
    with pytest.raises(UserError, match=r"model\.onnx not written: it differs from JAX"):
        export(FUNCTION, path)
    assert path.read_bytes() == b"earlier"
    assert list(tmp_path.iterdir()) == [path]


def test_features_that_are_not_finite_are_refused(tmp_path):
    with pytest.raises(UserError, match="nan"):
        export(lambda x: FUNCTION(x) * jnp.nan, tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


def test_the_mirror_left_out_is_noticed():
    model = verified.to_onnx(FUNCTION, mirror=False)
    with_mirror = verify.compare(model, lambda x: FUNCTION(x) + FUNCTION(x[:, :, ::-1]), (2,))
    assert with_mirror[2] > 0.1
    assert verify.compare(model, FUNCTION, (2,))[2] <= 1e-5
