"""Choosing images of a data set, and feeding them a few at a time."""

import numpy as np
import pytest

from uniface_jax.data.formats.images import encode_png
from uniface_jax.errors import UserError
from uniface_jax.export.quantization.calibration import BATCH_IMAGES, Batches, choose
from uniface_jax.inference.load import load_model


def test_the_seed_chooses_and_all_are_taken_where_there_are_fewer(small):
    given = str(small / "faces")
    first, again, other = (choose(given, 8, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.indices, again.indices)
    assert first.indices.tolist() != other.indices.tolist()
    assert len(set(first.indices.tolist())) == 8
    assert choose(given, 512, 0).indices.tolist() == list(range(23))


def test_batches_are_read_when_they_are_asked_for(small):
    chosen = choose(str(small / "faces"), 10, 0)
    feeds = load_model(small / "net.onnx").feeds
    batches = Batches(chosen, feeds)
    assert len(batches) == -(-10 // BATCH_IMAGES)
    fed = list(iter(batches.get_next, None))
    assert [len(feed["input"]) for feed in fed] == [4, 4, 2]
    batches.set_range(1, 2)
    (second,) = iter(batches.get_next, None)
    np.testing.assert_array_equal(second["input"], fed[1]["input"])
    expected = (chosen.pixels(4, 8).astype(np.float32) - 127.5) / 127.5
    np.testing.assert_array_equal(second["input"], expected.transpose(0, 3, 1, 2))


def test_an_image_of_another_size_is_named(small, tmp_path):
    (tmp_path / "wide.png").write_bytes(encode_png(np.zeros((112, 96, 3), np.uint8)))
    chosen = choose(str(tmp_path), 4, 0)
    with pytest.raises(UserError, match=r"--calibration: .*wide.png is 112x96x3 uint8, expected"):
        chosen.pixels(0, 1)
