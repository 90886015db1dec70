"""Tokens, hosts and rates."""

import pytest

from uniface_jax.errors import UserError
from uniface_jax.serve.access import Access, Rates, hosts_for, read_token
from uniface_jax.serve.problems import Problem

TOKEN = "0123456789abcdef"


def test_a_token_comes_from_a_file_or_the_environment(tmp_path):
    file = tmp_path / "token"
    file.touch(0o600)
    file.write_text(TOKEN + "\n")
    assert read_token(str(file), {"UNIFACE_TOKEN": "other"}) == TOKEN
    assert read_token(None, {"UNIFACE_TOKEN": TOKEN}) == TOKEN
    assert read_token(None, {}) is None


@pytest.mark.parametrize(
    "content", ["", "short", "0123456789 abcdef", f"{TOKEN}\n{TOKEN}", "é" * 20]
)
def test_other_tokens_are_refused_and_not_shown(tmp_path, content):
    file = tmp_path / "token"
    file.touch(0o600)
    file.write_text(content)
    with pytest.raises(UserError, match="visible ASCII") as found:
        read_token(str(file), {})
    assert not content or content not in str(found.value)


def test_a_token_that_others_may_read_is_refused(tmp_path):
    file = tmp_path / "token"
    file.write_text(TOKEN)
    file.chmod(0o640)
    with pytest.raises(UserError, match="chmod 600"):
        read_token(str(file), {})


def test_hosts():
    assert hosts_for("127.0.0.1", [], None) == Access().hosts
    assert hosts_for("localhost", ["Faces.local"], None) == Access().hosts | {"faces.local"}
    assert "10.0.0.7" in hosts_for("10.0.0.7", [], TOKEN)
    assert "[fd00::7]" in hosts_for("fd00::7", [], TOKEN)


@pytest.mark.parametrize(
    ("host", "named", "token", "words"),
    [
        ("0.0.0.0", ["a"], None, "a token is missing"),
        ("10.0.0.7", [], None, "a token is missing"),
        ("::", [], TOKEN, "--hosts is missing"),
        ("127.0.0.1", ["a:80"], None, "without a port"),
        ("127.0.0.1", ["a/b"], None, "without a port"),
    ],
)
def test_bad_hosts_are_refused(host, named, token, words):
    with pytest.raises(UserError, match=words):
        hosts_for(host, named, token)


def test_rates_are_by_address_and_flow_in():
    now = [0.0]
    rates = Rates(2.0, lambda: now[0])
    for _ in range(4):
        rates.take("10.0.0.1")
    with pytest.raises(Problem, match="requests a second"):
        rates.take("10.0.0.1")
    rates.take("10.0.0.2")
    now[0] = 0.5
    rates.take("10.0.0.1")
    with pytest.raises(Problem):
        rates.take("10.0.0.1")


def test_a_network_of_ipv6_is_one_address():
    rates = Rates(0.5, lambda: 0.0)
    rates.take("fd00::1")
    with pytest.raises(Problem):
        rates.take("fd00::2")
    rates.take("fd00:0:0:1::1")
