"""Workers that die: what they had is run by others, and the test in which one died only once."""

import re
import subprocess
import sys

import pytest

from tests.helpers.paths import ROOT

CONFTEST = """
from tests.helpers.scheduling import LoadFiles


def pytest_xdist_make_scheduler(config, log):
    return LoadFiles(config, log)
"""
TESTS = """
import os, pytest

@pytest.mark.parametrize("number", range({count}))
def test_it(number):
    if {deadly} and number == 1:
        os.kill(os.getpid(), 9)
"""


@pytest.mark.slow
def test_a_dead_workers_files_are_run_by_others(tmp_path):
    """Six files of one test and of four; one of them kills the worker that has it."""
    (tmp_path / "conftest.py").write_text(CONFTEST)
    for number in range(6):
        text = TESTS.format(count=1 if number % 2 else 4, deadly=number == 0)
        (tmp_path / f"test_file_{number}.py").write_text(text)
    done = subprocess.run(
        [
            sys.executable, "-m", "pytest", "-v", "-p", "no:cacheprovider", "-n", "2", "--dist",
            "loadfile", "--no-loadscope-reorder", f"--rootdir={tmp_path}", str(tmp_path),
        ],
        cwd=tmp_path, env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert done.returncode == 1, done.stdout
    assert "1 failed, 14 passed" in done.stdout
    assert done.stdout.count("node down") == 1
    assert re.search(r"FAILED test_file_0.py::test_it\[1\] - worker 'gw\d' crashed", done.stdout)
