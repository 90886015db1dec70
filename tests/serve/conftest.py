import pytest

from tests.helpers import serving


@pytest.fixture(scope="package")
def model(tmp_path_factory):
    return serving.tiny_model(tmp_path_factory.mktemp("model"))
