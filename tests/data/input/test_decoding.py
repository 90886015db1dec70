"""Decoding into the memory of a batch."""

import numpy as np
import pytest

from tests.helpers.batches import take
from uniface_jax.data.formats import images
from uniface_jax.errors import UserError


def test_a_huge_image_takes_no_memory(tmp_path, monkeypatch):
    """A JPEG that says 8000x8000 in its header is refused before any pixel is decoded."""
    monkeypatch.setattr(images, "decode", lambda *_: pytest.fail("decoded"))
    (tmp_path / "a").mkdir()
    jpeg = bytearray(images.encode_jpeg(np.zeros((112, 112, 3), np.uint8)))
    size = jpeg.index(b"\xff\xc0") + 5
    jpeg[size : size + 4] = (8000).to_bytes(2, "big") * 2
    (tmp_path / "a" / "1.jpg").write_bytes(jpeg)
    with pytest.raises(UserError, match=r"record 0 \(a/1.jpg\): 8000x8000 pixels, expected 112"):
        take(tmp_path, 1, batch_size=1)
