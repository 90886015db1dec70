"""JSON from anywhere: what is read, and what is refused in one line that names the file."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uniface_jax.errors import UserError
from uniface_jax.files import bounded_json
from uniface_jax.files.bounded_json import read_json

INT64 = st.integers(-(2**63), 2**63 - 1)
VALUES = st.recursive(
    st.none() | st.booleans() | INT64 | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return tmp_path_factory.mktemp("json") / "values.json"


@given(VALUES)
def test_what_is_written_is_read(file, value):
    file.write_text(json.dumps(value), encoding="utf-8")
    assert read_json(file, "a test writes it") == value


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"values\.json: not JSON"),
        (b"{", r"values\.json: not JSON"),
        (b'"\xff"', r"values\.json: not JSON"),
        (b"[" * 65 + b"]" * 65, r"values\.json: not JSON \(nested too deeply\)"),
        (b'{"a":' * 65 + b"1" + b"}" * 65, r"values\.json: not JSON \(nested too deeply\)"),
        (b"[" * 100_000, r"values\.json: not JSON"),
        (b"9" * 21, r"values\.json: not JSON \(a number of 21 digits\)"),
        (b"9" * 5000, r"values\.json: not JSON \(a number of 5000 digits\)"),
    ],
)
def test_what_is_no_json_is_named(file, content, message):
    file.write_bytes(content)
    with pytest.raises(UserError, match=message) as error:
        read_json(file, "a test writes it")
    assert "\n" not in str(error.value)


def test_what_is_not_there_says_who_writes_it(tmp_path):
    with pytest.raises(UserError, match=r"none\.json: No such file or directory; a test writes it"):
        read_json(tmp_path / "none.json", "a test writes it")
    with pytest.raises(UserError, match="Is a directory"):
        read_json(tmp_path, "a test writes it")


def test_large_files_are_not_read(file, monkeypatch):
    monkeypatch.setattr(bounded_json, "MAX_BYTES", 10)
    file.write_text('"12345678"')
    assert read_json(file, "") == "12345678"
    file.write_text('"123456789"')
    with pytest.raises(UserError, match=r"values\.json: 11 bytes; at most 10 are read"):
        read_json(file, "")
