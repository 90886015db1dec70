"""Small sources of faces-like images, made once a session."""

import numpy as np
import pytest

from uniface_jax.data.conversion.run import write_dataset
from uniface_jax.data.formats import images
from uniface_jax.data.sources.folders import FolderSource

COUNTS = {"s1": 7, "s2": 5, "s10": 11}  # 23 images, a prime, so that batches never fit an epoch


@pytest.fixture(scope="session")
def faces(tmp_path_factory):
    """Identity folders s1, s2, s10 with JPEG and PNG of 112x112, every image different."""
    root = tmp_path_factory.mktemp("faces")
    random = np.random.RandomState(0)
    for identity, count in COUNTS.items():
        (root / identity).mkdir()
        for i in range(1, count + 1):
            image = np.kron(random.randint(0, 256, (14, 14, 3)), np.ones((8, 8, 1))).astype(
                np.uint8
            )
            if i % 2:
                (root / identity / f"{i}.jpg").write_bytes(images.encode_jpeg(image))
            else:
                (root / identity / f"{i}.png").write_bytes(images.encode_png(image))
    return root


@pytest.fixture(scope="session")
def dataset(faces, tmp_path_factory):
    """The same faces as a TFRecord data set of shards of 10, 10 and 3."""
    folder = tmp_path_factory.mktemp("sets") / "faces"
    write_dataset(FolderSource(faces), folder, name="faces", seed=1, shard_size=10)
    return folder
