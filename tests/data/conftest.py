"""A copy of the small data set, to be damaged."""

import shutil

import pytest


@pytest.fixture
def copy(dataset, tmp_path):
    return shutil.copytree(dataset, tmp_path / "copy")
