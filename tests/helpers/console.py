"""A reader's shell: a folder with `uniface` and `python`, as after pip install, on the path."""

import os
import sys
from pathlib import Path

from tests.helpers.compilation import FAST_COMPILATION
from tests.helpers.paths import ROOT

# What pip makes of the entry point, from pyproject.toml.
ENTRY_POINT = "import sys; from uniface_jax.cli.console import main; sys.exit(main())\n"


def make_tools(folder: Path) -> None:
    """Write the programs `uniface` and `python` into a new folder."""
    folder.mkdir()
    python, uniface = folder / "python", folder / "uniface"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    uniface.write_text(f"#!{sys.executable}\n{ENTRY_POINT}")
    for tool in (python, uniface):
        tool.chmod(0o755)


def environment(tools: Path) -> dict[str, str]:
    """Return the environment of a command: the tools first, the package as if it were installed."""
    return {
        **os.environ,
        "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "XLA_FLAGS": FAST_COMPILATION,
    }
