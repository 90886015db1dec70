"""Golden numbers by the code that users run: tests else compile faster (helpers/compilation.py)."""

import os
import subprocess
import sys

import pytest

from tests.helpers.paths import ROOT

GOLDEN = ("tests/head/test_loss_golden.py", "tests/models/test_layers.py")


@pytest.mark.slow
@pytest.mark.skipif(
    os.environ.get("UNIFACE_TEST_COMPILER") == "user", reason="all tests do so then"
)
def test_golden_numbers_of_a_users_compiler():
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-n", "0", "-m", "not slow", *GOLDEN],
        cwd=ROOT, capture_output=True, text=True,
        env={**os.environ, "UNIFACE_TEST_COMPILER": "user"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:]
    assert " passed" in done.stdout
