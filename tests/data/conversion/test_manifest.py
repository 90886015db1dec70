"""Manifests: what is refused."""

import json

import pytest

from uniface_jax.data.conversion.job import ConversionSettings
from uniface_jax.data.conversion.manifest import MANIFEST_FILE
from uniface_jax.data.conversion.run import convert
from uniface_jax.data.conversion.verify import verify
from uniface_jax.errors import UserError


def test_a_manifest_lists_images_of_its_source(damaged, tmp_path):
    convert(damaged, tmp_path / "skip", ConversionSettings("f", on_error="skip"))
    manifest = json.loads((tmp_path / "skip" / MANIFEST_FILE).read_text())
    manifest["skipped"][0]["index"] = 10**15
    (tmp_path / "skip" / MANIFEST_FILE).write_text(json.dumps(manifest))
    with pytest.raises(UserError, match=r"skipped\[0\]: index 1000000000000000, expected 0\.\."):
        verify(damaged, tmp_path / "skip")
    manifest["seed"] = 10**30
    (tmp_path / "skip" / MANIFEST_FILE).write_text(json.dumps(manifest))
    with pytest.raises(UserError, match=r"manifest\.json: not JSON \(a number of 31 digits\)"):
        verify(damaged, tmp_path / "skip")
