"""Every script says in one line what it is for."""

import os
import runpy
import sys

import pytest

from tests.helpers.paths import ROOT

SCRIPTS = [
    path
    for path in sorted((ROOT / "scripts").glob("*.py"))
    if 'if __name__ == "__main__":' in path.read_text().splitlines()
]


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_help_begins_with_the_usage_and_the_docstrings_line(path, monkeypatch, capsys):
    if "import torch\n" in path.read_text().partition("\ndef ")[0]:
        pytest.importorskip("torch", reason=f"{path.name} imports PyTorch as it starts")
    monkeypatch.setattr(os, "environ", os.environ.copy())  # some set flags for their processes
    monkeypatch.setattr(sys, "argv", [str(path), "--help"])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_path(str(path), run_name="__main__")
    assert not stopped.value.code
    usage, description, *_ = capsys.readouterr().out.split("\n\n")
    assert usage.startswith(f"usage: {path.name} ")
    summary = path.read_text().removeprefix('"""').partition("\n")[0].removesuffix('"""')
    assert " ".join(description.split()).startswith(summary.rstrip())


def test_the_scripts_are_found():
    assert {"bench_train", "fuzz_readers", "launch_local"} <= {path.stem for path in SCRIPTS}
