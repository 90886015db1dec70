"""The notebook: what is committed is whole, and (slow) it runs from top to bottom.

It runs with shorter trainings than those committed, of which its claims are: what a cell computes
and shows of eight runs does not depend on their lengths.
"""

import json
import os

import nbformat
import pytest
from nbclient import NotebookClient

from tests.helpers.compilation import FAST_COMPILATION
from tests.helpers.paths import ROOT

NOTEBOOK = ROOT / "notebooks" / "loss_inspection.ipynb"
LOSSES = ("NSL", "CosFace", "BCE", "UCE")
LENGTHS, SHORTER = "STEPS, BATCH = 100, 64", "STEPS, BATCH = 10, 16"


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def shown(notebook, kind="text/markdown"):
    """All outputs of one kind, in order."""
    outputs = [output for cell in code_cells(notebook) for output in cell.outputs]
    return [output.data[kind] for output in outputs if kind in output.get("data", {})]


def check_outputs(notebook):
    for cell in code_cells(notebook):
        assert not [output for output in cell.outputs if output.output_type == "error"]
    assert len(shown(notebook, "image/png")) >= 6
    conclusion = shown(notebook)[-1]
    for part in ("Sample to class, people seen.", "Pairs of people seen.",
                 "Pairs of people unseen.", "How far this carries."):  # fmt: skip
        assert f"**{part}**" in conclusion
    for name in LOSSES:
        assert conclusion.count(name) >= 5
        assert any(table.count(f"| {name} | ") == 1 for table in shown(notebook))


def test_committed_with_its_outputs():
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    counts = [cell.execution_count for cell in code_cells(notebook)]
    assert counts == list(range(1, len(counts) + 1))
    check_outputs(notebook)
    assert code_cells(notebook)[0].source.count(LENGTHS) == 1
    assert "this network and 100 steps" in shown(notebook)[-1]
    assert "/root/" not in json.dumps(notebook)
    assert "/work/" not in json.dumps(notebook)


def test_conclusion_follows_from_the_table():
    """The committed sentence on one threshold is what the committed table of section 3 says."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    table = next(text for text in shown(notebook) if "one threshold?" in text)
    rows = {row.split(" | ")[0].strip("| "): row.split(" | ") for row in table.splitlines()[2:]}
    column = table.splitlines()[0].split(" | ").index("one threshold?")
    conclusion = shown(notebook)[-1]
    for name in LOSSES:
        verdicts = rows[name][column].split(" / ")
        assert f"{name} {verdicts.count('yes')} of {len(verdicts)}" in conclusion
        lowest, highest = (
            [float(x) for x in rows[name][i].split(" / ")] for i in (column - 2, column - 1)
        )
        expected = ["yes" if a > b else "no" for a, b in zip(lowest, highest, strict=True)]
        assert verdicts == expected


@pytest.mark.slow
def test_runs_from_top_to_bottom():
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    for cell in code_cells(notebook):
        cell.outputs = []
    first = code_cells(notebook)[0]
    first.source = first.source.replace(LENGTHS, SHORTER)
    folder = {"metadata": {"path": str(NOTEBOOK.parent)}}
    # One device, as a user has it; the tests' own environment has eight virtual ones.
    environment = {**os.environ, "XLA_FLAGS": FAST_COMPILATION}
    NotebookClient(notebook, timeout=1800, resources=folder).execute(env=environment)
    check_outputs(notebook)
    assert "this network and 10 steps" in shown(notebook)[-1]
