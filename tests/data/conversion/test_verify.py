"""The proof that a data set holds what its source holds."""

import shutil

import numpy as np
import pytest

from uniface_jax.data.conversion.verify import verify
from uniface_jax.data.formats.image_index import IMAGE_INDEX_FILE
from uniface_jax.data.formats.tfrecord_shards import INDEX_FILE
from uniface_jax.data.sources.folders import FolderSource
from uniface_jax.errors import UserError


def test_verify_finds_what_differs(source, undisturbed, tmp_path):
    proof = verify(source, undisturbed, workers=2)
    assert (proof.images, proof.skipped) == (23, 0)
    assert proof == verify(source, undisturbed)

    copy = shutil.copytree(undisturbed, tmp_path / "copy")
    shard = sorted(copy.glob("faces-train*"))[2]
    content = bytearray(shard.read_bytes())
    content[200] ^= 1
    shard.write_bytes(content)
    with pytest.raises(UserError, match=rf"{shard.name}: record 0: its checksum"):
        verify(source, copy)

    indexed = shutil.copytree(undisturbed, tmp_path / "indexed")
    rows = np.load(indexed / IMAGE_INDEX_FILE)
    rows["label"][12] = (rows["label"][12] + 1) % 3
    np.save(indexed / IMAGE_INDEX_FILE, rows)
    with pytest.raises(
        UserError, match=rf"record \d+: {IMAGE_INDEX_FILE} has another image or lab"
    ):
        verify(source, indexed)
    (indexed / IMAGE_INDEX_FILE).unlink()
    bounds = np.load(indexed / INDEX_FILE)
    bounds[2] = 1 << 60
    np.save(indexed / INDEX_FILE, bounds)
    with pytest.raises(UserError, match=rf"00000-of-00006: {INDEX_FILE} has other places"):
        verify(source, indexed)
    (indexed / INDEX_FILE).unlink()
    assert verify(source, indexed) == proof

    other = shutil.copytree(source.path, tmp_path / "other")
    first, second = other / "s1" / "1.jpg", other / "s2" / "1.jpg"
    kept = first.read_bytes()
    first.write_bytes(second.read_bytes())
    with pytest.raises(UserError, match=r"only in the source: s1/1\.jpg; only in the data set: s1"):
        verify(FolderSource(other), undisturbed)
    second.write_bytes(kept)  # the same bytes in all, under each other's label
    with pytest.raises(UserError, match=r"only in the source: s[12]/1\.jpg"):
        verify(FolderSource(other), undisturbed)
    first.unlink()
    with pytest.raises(UserError, match=r"22 images of 3 classes; .* was made of 23 of 3"):
        verify(FolderSource(other), undisturbed)
