"""Where process 0 listens for the others, and what it says where it cannot."""

import socket

import pytest

from uniface_jax.errors import UserError
from uniface_jax.runtime.processes import _free_address


@pytest.fixture
def port():
    with socket.socket() as tried:
        tried.bind(("127.0.0.1", 0))
        return tried.getsockname()[1]


def test_an_address_listens_there_alone_and_a_name_everywhere(port):
    assert _free_address(f"127.0.0.1:{port}") == f"127.0.0.1:{port}"
    assert _free_address(f"localhost:{port}") == f"127.0.0.1:{port}"
    everywhere = {f"[::]:{port}", f"0.0.0.0:{port}"}
    assert _free_address(f"node-0.example:{port}") in everywhere
    assert _free_address(f"192.0.2.1:{port}") in everywhere  # not this machine's: translated


def test_a_port_in_use_or_none_is_one_line():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(UserError, match=f"coordinator={address}: cannot listen there .Address"):
            _free_address(address)
    with pytest.raises(UserError, match=r"cannot listen there .*0-65535"):
        _free_address("127.0.0.1:99999")
