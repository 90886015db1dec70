"""The RecordIO fixtures that the real MXNet tools wrote, one layout after the other."""

import shutil

import pytest


@pytest.fixture(params=["insightface", "im2rec"])
def layout(request, fixtures_folder, tmp_path):
    return shutil.copytree(fixtures_folder / request.param, tmp_path / request.param)
