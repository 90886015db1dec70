"""A source, the data set made of it, and a damaged source."""

import shutil

import numpy as np
import pytest

from tests.helpers.conversion import FACES
from uniface_jax.data.conversion.run import convert
from uniface_jax.data.sources.folders import FolderSource


@pytest.fixture(scope="module")
def source(faces):
    return FolderSource(faces)


@pytest.fixture(scope="module")
def undisturbed(source, tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed") / "set"
    convert(source, folder, FACES)
    return folder


@pytest.fixture
def damaged(faces, tmp_path):
    """23 images of which one is cut short, one is HTML, one is WebP and one is gone."""
    folder = shutil.copytree(faces, tmp_path / "damaged")
    whole = (folder / "s1" / "1.jpg").read_bytes()
    (folder / "s1" / "1.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "s2" / "1.jpg").write_bytes(b"<html>404</html>")
    webp = np.zeros((8, 8, 3), np.uint8)
    import cv2

    (folder / "s10" / "2.png").write_bytes(cv2.imencode(".webp", webp)[1].tobytes())
    source = FolderSource(folder)
    (folder / "s10" / "3.jpg").unlink()
    return source
