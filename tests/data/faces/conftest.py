"""The packaged detector, and a photograph of one face."""

import pytest

from uniface_jax.data.faces.alignment import FaceDetector
from uniface_jax.data.faces.orl import orl_folder
from uniface_jax.data.formats import images


@pytest.fixture(scope="module")
def detector():
    return FaceDetector()


@pytest.fixture(scope="module")
def photo():
    return images.decode((orl_folder() / "s6" / "1.pgm").read_bytes(), "s6/1.pgm")
