"""Manifests: what is refused."""

import json

import numpy as np
import pytest
from PIL import Image

from uniface_jax.data.conversion.job import ConversionSettings
from uniface_jax.data.conversion.manifest import MANIFEST_FILE, read_manifest
from uniface_jax.data.conversion.run import convert
from uniface_jax.data.conversion.verify import verify
from uniface_jax.data.formats.images import encode_jpeg
from uniface_jax.data.formats.seal import sealed
from uniface_jax.data.sources.folders import FolderSource
from uniface_jax.errors import UserError


def test_a_manifest_lists_images_of_its_source(damaged, tmp_path):
    convert(damaged, tmp_path / "skip", ConversionSettings("f", on_error="skip"))
    manifest = json.loads((tmp_path / "skip" / MANIFEST_FILE).read_text())
    manifest["skipped"][0]["index"] = 10**15
    (tmp_path / "skip" / MANIFEST_FILE).write_text(json.dumps(manifest))
    with pytest.raises(UserError, match=r"manifest\.json: damaged: its digest is not"):
        verify(damaged, tmp_path / "skip")
    del manifest["digest"]
    (tmp_path / "skip" / MANIFEST_FILE).write_bytes(sealed(manifest))
    with pytest.raises(UserError, match=r"skipped\[0\]: index 1000000000000000, expected 0\.\."):
        verify(damaged, tmp_path / "skip")
    manifest["seed"] = 10**30
    (tmp_path / "skip" / MANIFEST_FILE).write_text(json.dumps(manifest))
    with pytest.raises(UserError, match=r"manifest\.json: not JSON \(a number of 31 digits\)"):
        verify(damaged, tmp_path / "skip")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("dropped", [7], "dropped: expected labels of the source's classes"),
        ("dropped", [1, 1], "dropped: a class is named twice"),
        ("files", {"../x": "0"}, "files: expected names of files"),
        ("files", [], "files is a list, expected a dict"),
        ("turned", [{"index": 0}], r"turned\[0\]: expected the keys"),
    ],
)
def test_later_keys_are_checked(faces, tmp_path, key, value, message):
    source = FolderSource(faces)
    convert(source, tmp_path / "set", ConversionSettings("f"))
    manifest = json.loads((tmp_path / "set" / MANIFEST_FILE).read_text())
    del manifest["digest"]
    (tmp_path / "set" / MANIFEST_FILE).write_bytes(sealed({**manifest, key: value}))
    with pytest.raises(UserError, match=rf"manifest\.json: {message}"):
        verify(source, tmp_path / "set")


def test_turned_images_are_listed(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels = np.zeros((112, 112, 3), np.uint8)
    (tmp_path / "faces" / "ann").mkdir(parents=True)
    (tmp_path / "faces" / "ann" / "1.jpg").write_bytes(encode_jpeg(pixels))
    Image.fromarray(pixels).save(tmp_path / "faces" / "ann" / "2.jpg", exif=exif)
    convert(FolderSource(tmp_path / "faces"), tmp_path / "set", ConversionSettings("f"))
    expected = [{"index": 1, "name": "ann/2.jpg", "orientation": 6}]
    assert read_manifest(tmp_path / "set").turned == expected
