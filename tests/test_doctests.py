"""The examples in the package's docstrings, which readers copy."""

import doctest
import importlib
from pathlib import Path

import pytest

from tests.helpers.paths import ROOT


def module_of(file: Path) -> str:
    return ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = sorted(
    module_of(file) for file in (ROOT / "uniface_jax").rglob("*.py") if ">>> " in file.read_text()
)


@pytest.mark.parametrize("name", MODULES)
def test_examples_give_what_they_say(name):
    module = importlib.import_module(name)
    failed, tried = doctest.testmod(module)
    assert tried
    assert not failed  # the report says which


def test_the_public_functions_have_examples():
    rooms = {name.split(".")[1] for name in MODULES}
    assert rooms >= {"evaluate", "export", "inference", "inspection", "weights", "head", "losses"}
