"""Decoding into the memory of a batch."""

import numpy as np
import pytest
import simplejpeg

from tests.helpers.batches import take
from tests.helpers.jpegs import progressive_jpeg
from tests.helpers.paths import ROOT
from uniface_jax.data.formats import images
from uniface_jax.data.input.decoding import Memory, Part, fill
from uniface_jax.data.sources.opening import open_source
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


def test_a_jpeg_of_a_million_scans_is_refused_before_it_is_decoded(tmp_path, monkeypatch):
    """By the decoder of batches too, which would be at it for minutes, in C, without a word."""
    monkeypatch.setattr(simplejpeg, "decode_jpeg", lambda *_, **__: pytest.fail("decoded"))
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.jpg").write_bytes(progressive_jpeg(112, more_scans=1_000_000))
    with pytest.raises(UserError, match=r"record 0 \(a/1.jpg\): a JPEG of more than 100 scans$"):
        take(tmp_path, 1, batch_size=1)


@pytest.mark.parametrize("mirror", [False, True])
def test_a_turned_photograph_has_one_answer(mirror):
    """The file that a camera turned, by the decoder of training and by the one of all others."""
    source = open_source(ROOT / "tests" / "cases" / "field" / "18-exif-two-answers" / "faces")
    memory = Memory(np.zeros((4, 112, 112, 3), np.uint8), np.zeros(4, np.int32))
    part = Part(np.arange(4), np.full(4, mirror), np.zeros((4, 0), np.float32))
    fill(source, [], part, memory)
    for record, filled in enumerate(memory.pixels):
        item = source[record]
        expected = images.decode(item.image, item.name)
        assert images.orientation(item.image) == (6 if "phone" in item.name else 1)
        # Two decoders of JPEG round differently.
        assert np.abs((filled[:, ::-1] if mirror else filled) - expected.astype(int)).max() <= 2
    for phone, upright in ((0, 1), (2, 3)):  # compressed twice
        assert np.abs(memory.pixels[phone].astype(int) - memory.pixels[upright]).mean() < 6
