"""Accelerators by their names."""

import re

import pytest

from uniface_jax.errors import UserError
from uniface_jax.plan import targets


@pytest.mark.parametrize(
    ("text", "devices", "name"),
    [
        ("h100", 8, "h100"), ("H200", 8, "h200"), ("v5e:4x4", 16, "v5e:4x4"),
        ("v5p:2x2x4", 16, "v5p:2x2x4"), ("V6E:2x4", 8, "v6e:2x4"), ("v4:2x2x1", 4, "v4:2x2x1"),
        ("v5e:1x1", 1, "v5e:1x1"), ("v5p:1x1x1", 1, "v5p:1x1x1"),
    ],
)  # fmt: skip
def test_names(text, devices, name):
    target = targets.parse(text, 8)
    assert (target.name, target.devices) == (name, devices)
    assert target.card == targets.CARDS[target.kind]


@pytest.mark.parametrize(
    "text",
    ["", "h101", "h100:8", "v5e", "v5e:", "v5e:4", "v5e:0x4", "v5e:2x2x2", "v5p:2x2", "v5e:4x-4",
     "v5e:9999x9999", "v5e:3x5", "v5e:1x2", "v5p:1x2x2", "v6e:2x1", "v5e:4x4\n", "cuda:v5e:4x4"],
)  # fmt: skip
def test_other_names_are_refused_in_one_line(text):
    with pytest.raises(UserError, match=re.escape(f"--target={text}: allowed are a100, h100")) as e:
        targets.parse(text, 8)
    assert "v5e:4x4" in str(e.value)
