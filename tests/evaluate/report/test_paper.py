"""The paper's numbers: the recipes quote the same, and they are shown where they may."""

import ast
import re

import pytest

from tests.helpers.paths import ROOT
from uniface_jax.evaluate.report import paper

RECIPES = sorted((ROOT / "configs").glob("*.py"))


def test_every_number_that_a_recipe_quotes_is_in_the_table():
    known = {f"{value:.2f}" for row in paper.ROWS for value in row.values.values()}
    quoted = 0
    for path in RECIPES:
        text = (ast.get_docstring(ast.parse(path.read_text())) or "").partition("Paper")[2]
        for number in re.findall(r"\b\d\d\.\d\d\b", text):
            assert number in known, f"{path.name}: {number}"
            quoted += 1
    assert quoted > 40


def test_numbers_stand_beside_those_of_the_published_sets_only():
    lfw = {"pairs": 6000, "same": 3000, "accuracy": {"mean": 0.99}}
    assert paper.comparable("verification", "lfw", lfw) == {paper.LFW: 99.0}
    assert paper.comparable("verification", "lfw", {**lfw, "pairs": 600}) == {}
    assert paper.comparable("verification", "mine", lfw) == {}
    tars = [
        {"far": far, "nearest": {"tar": tar}} for far, tar in [(1e-5, 0.5), (1e-4, 0.75), (0.1, 1)]
    ]
    ijbc = {"same": 19_557, "different": 15_638_932, "tar_at_far": tars}
    expected = {paper.IJBC_4: 75.0, paper.IJBC_5: 50.0}
    assert paper.comparable("ijb", "ijbc", ijbc) == expected
    assert paper.comparable("ijb", "ijbb", {**ijbc, "same": 10_270}) == {}
    assert paper.comparable("ijb", "ijbc_1N_G1", {"closed_set": {}}) == {}


@pytest.mark.parametrize(
    ("key", "count"), [(paper.LFW, 7), (paper.MR_ALL, 17), (paper.REFINED_ID, 2)]
)
def test_rows_are_those_with_the_number(key, count):
    assert len(paper.rows_for({key})) == count
