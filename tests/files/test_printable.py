"""Names that would move a cursor, turn a line around or fail to be encoded are shown escaped."""

import os
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uniface_jax.files.printable import printable


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("Zoë 李 😀 ~$_{", "Zoë 李 😀 ~$_{"),
        ("p\x1b]0;PWNED\x07", r"p\x1b]0;PWNED\x07"),
        ("a\nb\r\tc", r"a\nb\r\tc"),
        (os.fsdecode(b"No\xebl"), r"No\xebl"),
        ("gpj.\u202eexe", r"gpj.\u202eexe"),
        ("\ud800", r"\ud800"),
        ("\x9b2J", r"\x9b2J"),
    ],
)
def test_a_name_is_shown(name, shown):
    assert printable(name) == shown


@given(st.text(st.characters(codec=None)))
def test_whatever_is_shown_can_be_encoded_and_holds_no_control_character(name):
    shown = printable(name)
    shown.encode()
    assert not {unicodedata.category(c) for c in shown} & {"Cc", "Cs", "Zl", "Zp"}
    assert printable(shown) == shown
