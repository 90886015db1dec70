"""What commands print of names from elsewhere, and what they say where the system refuses."""

import os
import subprocess
import sys
import textwrap

import pytest

from tests.helpers.paths import ROOT

IMPORTS = """
import logging, sys, warnings
from pathlib import Path
import absl.logging
from tqdm import tqdm
from uniface_jax import cli
"""


def run_main(body, env=None):
    """Run a command whose main has this body; return its status and the bytes it printed."""
    program = f"{IMPORTS}\ndef main(argv):\n{textwrap.indent(body, '    ')}\n\ncli.run(main)\n"
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": str(ROOT), **(env or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    return done.returncode, done.stdout


NAME = r"a\x1b]0;PWNED\x07\x1b[2J\u202e\udcebé≤"


@pytest.mark.parametrize(
    "how",
    [
        "print(NAME)",
        "print(NAME, file=sys.stderr)",
        "sys.stdout.write(NAME)",
        "absl.logging.warning(NAME)",
        "logging.getLogger('x').warning(NAME)",
        "warnings.warn(NAME)",
        "tqdm.write(NAME)",
        "list(tqdm([1], desc=NAME))",
        "raise cli.UserError(NAME)",
        "open('/not-there/' + NAME)",
    ],
)
def test_names_are_shown_and_not_obeyed(how):
    _, printed = run_main(f"NAME = '{NAME}'\n{how}")
    assert rb"a\x1b]0;PWNED\x07\x1b[2J\u202e\xeb" in printed
    assert "é≤".encode() in printed
    assert not {0x1B, 0x07} & set(printed)
    assert b"Traceback" not in printed


def test_an_ascii_locale_takes_every_letter():
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    status, printed = run_main(
        r"print('FAR \u2264 0.1'); raise cli.UserError('\u2264')", ascii_only
    )
    assert (status, printed) == (2, b"FAR \\u2264 0.1\nerror: \\u2264\n")


def test_tables_bars_and_lines_stay_as_they_are():
    _, printed = run_main(r"print('a\tb\nc'); list(tqdm([1], desc='bar'))")
    assert printed.startswith(b"a\tb\nc\n")
    assert b"\rbar: 100%" in printed


@pytest.mark.parametrize(
    ("body", "line"),
    [
        ("open('/not/there')", "error: /not/there: No such file or directory"),
        ("Path('/proc/x').mkdir()", "error: /proc/x: No such file or directory"),
        ("raise OSError('only this')", "error: only this"),
        ("raise OSError(28, 'No space left on device')", "error: No space left on device"),
    ],
)
def test_what_the_system_refuses_is_one_line(body, line):
    assert run_main(body) == (2, f"{line}\n".encode())
