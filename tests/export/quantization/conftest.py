"""Faces and a small network, which the tests of quantization share."""

import numpy as np
import pytest

from tests.helpers.faces import make_faces
from tests.helpers.onnx_graphs import conv_network
from uniface_jax.data.formats.bin_pairs import write_pairs
from uniface_jax.data.formats.images import encode_png


@pytest.fixture(scope="session")
def small(tmp_path_factory):
    """A folder with faces/ of three people, net.onnx, and pairs.bin."""
    folder = tmp_path_factory.mktemp("small")
    (folder / "faces").mkdir()
    make_faces(folder / "faces")
    conv_network(folder / "net.onnx", metadata={"uniface_jax.mirror": "0"})
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (20, 112, 112, 3), np.uint8)
    images[10:] = np.clip(images[:10] + rng.integers(-60, 61, images[:10].shape), 0, 255)
    first, second = np.repeat(np.arange(10), 2), np.tile([0, 1], 10)
    second = 10 + (first + second) % 10
    same = np.arange(20) % 2 == 0
    write_pairs(folder / "pairs.bin", [encode_png(image) for image in images], first, second, same)
    return folder
