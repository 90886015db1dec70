"""Accelerators by their names, and what is said where their compilers are missing."""

import importlib.util
import re

import pytest

from uniface_jax.errors import UserError
from uniface_jax.plan import targets


@pytest.mark.parametrize(
    ("text", "devices", "name"),
    [
        ("h100", 8, "h100"), ("H200", 8, "h200"), ("v5e:4x4", 16, "v5e:4x4"),
        ("v5p:2x2x4", 16, "v5p:2x2x4"), ("V6E:2x4", 8, "v6e:2x4"), ("v4:2x2x1", 4, "v4:2x2x1"),
    ],
)  # fmt: skip
def test_names(text, devices, name):
    target = targets.parse(text, 8)
    assert (target.name, target.devices) == (name, devices)
    assert target.card == targets.CARDS[target.kind]


@pytest.mark.parametrize(
    "text",
    ["", "h101", "h100:8", "v5e", "v5e:", "v5e:4", "v5e:0x4", "v5e:2x2x2", "v5p:2x2", "v5e:4x-4",
     "v5e:9999x9999", "v5e:4x4\n", "cuda:v5e:4x4"],
)  # fmt: skip
def test_other_names_are_refused_in_one_line(text):
    with pytest.raises(UserError, match=re.escape(f"--target={text}: allowed are a100, h100")) as e:
        targets.parse(text, 8)
    assert "v5e:4x4" in str(e.value)


@pytest.mark.parametrize(
    ("name", "module", "extra"),
    [("h100", "jax_plugins.xla_cuda12", "cuda"), ("v5e:2x4", "libtpu", "tpu")],
)
def test_a_missing_compiler_is_named_with_the_way_to_it(name, module, extra):
    try:
        present = importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        present = False
    if present or (extra == "cuda" and importlib.util.find_spec("jax_plugins")):
        pytest.skip("XLA's compiler is installed: test_compiled_for_accelerators.py compiles")
    with pytest.raises(UserError, match=f"--target={name}: .*pip install 'uniface_jax.{extra}.'"):
        targets.devices_of(targets.parse(name, 1))


def test_a_gpu_is_described_for_the_compiler():
    text = targets._description("h100")
    assert "shared_memory_per_block_optin: 232448 " in text
    assert "cuda_compute_capability { major: 9 minor: 0 }" in text
    assert text.count("{") == text.count("}")
