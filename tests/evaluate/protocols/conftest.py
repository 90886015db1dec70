"""Folders of faces for the protocols that score all pairs."""

import numpy as np
import pytest

from tests.helpers.feature_sources import corners_both
from uniface_jax.data.formats.images import encode_png


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Two populations of four people with three images each: {"north/p0/0.png": unit feature}."""
    folder = tmp_path_factory.mktemp("world")
    rng = np.random.default_rng(11)
    features = {}
    for population in ("north", "south"):
        for person in range(4):
            base = rng.integers(0, 256, (112, 112, 3))
            for number in range(3):
                name = f"{population}/p{person}/{number}.png"
                noisy = base + rng.normal(0, 90, base.shape)
                face = np.clip(noisy, 0, 255).astype(np.uint8)
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).write_bytes(encode_png(face))
                feature = corners_both(face[None])[0].astype(float)
                features[name] = feature / np.linalg.norm(feature)
    return folder, features
