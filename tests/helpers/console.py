"""A reader's shell: a folder with `uniface` and `python`, as after pip install, on the path."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

from tests.helpers.compilation import FAST_COMPILATION
from tests.helpers.forked_commands import ForkedCommands
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


def run(command: str, folder: Path, forked: ForkedCommands) -> subprocess.CompletedProcess[str]:
    """Run a reader's command in `folder`, whose tools are in .tools; capture what it prints.

    `uniface …` alone has its imports done; the shell runs all else.
    """
    if words := _words_of_uniface(command):
        return forked.complete("uniface", words[1:], folder)
    return subprocess.run(
        ["bash", "-c", command],
        cwd=folder,
        env=environment(folder / ".tools"),
        capture_output=True,
        text=True,
        timeout=300,
    )


def _words_of_uniface(command: str) -> list[str]:
    """Return the words of a call of `uniface`; none where only a shell understands the command."""
    joined = command.replace("\\\n", " ")
    parts = shlex.shlex(joined, posix=True, punctuation_chars=True)
    parts.whitespace_split = True
    words = list(parts)
    plain = not any(re.fullmatch("[();<>|&]+", word) for word in words)
    return words if plain and words[0] == "uniface" and not re.search(r"[$`*?~]", joined) else []
