"""Hostile pickles: refused by name, and in little memory."""

import pickle
import resource

import numpy as np
import pytest

from uniface_jax.data.formats.bin_pairs import read_pairs
from uniface_jax.errors import UserError


def test_fixtures_malicious_is_refused_by_name(fixtures_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"malicious\.bin: refused.*'posix\.system'"):
        read_pairs(fixtures_folder / "bins" / "malicious.bin")
    assert list(tmp_path.iterdir()) == []


class Call:
    """Pickles as a call of any function."""

    def __init__(self, function, *arguments):
        self.parts = function, arguments

    def __reduce__(self):
        return self.parts


@pytest.mark.parametrize(
    ("function", "name"),
    [(eval, "eval"), (np.load, "load"), (getattr, "getattr"), (bytearray, "bytearray")],
)
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_every_other_global_is_refused_by_name(tmp_path, function, name, protocol):
    file = tmp_path / "set.bin"
    file.write_bytes(pickle.dumps(([Call(function, 1), b"a"], [True]), protocol))
    with pytest.raises(UserError, match=rf"refused, the pickle holds the global '.*{name}"):
        read_pairs(file)


def bombs():
    """Pickles that would take gigabytes if what they declare were believed."""
    head = b"\x80\x04"
    yield "bytes", head + b"\x8e" + (1 << 40).to_bytes(8, "little") + b"abc"
    yield "memo", head + b"]r\xff\xff\xff\xff."
    text = b"X" + (1 << 20).to_bytes(4, "little") + b"a" * (1 << 20) + b"q\x00"
    encode = b"c_codecs\nencode\nq\x01X\x06\x00\x00\x00latin1q\x02000"
    again = b"h\x01h\x00h\x02\x86R"
    yield "encode", head + text + encode + again * 20_000 + b"."
    shape = b"J\xff\xff\xff\x7f"
    array = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n" + shape + b"\x85C\x01b\x87R."
    yield "array", head + array
    nested = b"(h\x00h\x00h\x00h\x00h\x00h\x00h\x00h\x00tq\x00"
    yield "tuples", head + b")q\x00" + nested * 40 + b"]h\x00ah\x00]h\x00a\x86."
    yield "call", head + b"c_codecs\nencode\n)q\x00" + nested * 40 + b"R."


@pytest.mark.parametrize(("name", "content"), [*bombs()], ids=lambda value: str(value)[:6])
def test_bombs_take_no_memory(tmp_path, name, content):
    file = tmp_path / f"{name}.bin"
    file.write_bytes(content)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UserError, match=name):
        read_pairs(file)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 32_000  # KiB
