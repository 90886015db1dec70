"""What make would do, as `make -n` prints it: which extras are installed for which target."""

import os
import shutil
import subprocess

import pytest

from tests.helpers.paths import ROOT

pytestmark = pytest.mark.skipif(not shutil.which("make"), reason="make is not installed")

CLEARED = "-m venv --clear"
DEMO = '-e ".[demo,export]"'
EVERYTHING = '-e ".[test,docs]"'


@pytest.fixture
def planned(tmp_path):
    """Returns the commands of a target, for an environment with the markers of these kinds."""

    def plan(target: str, *markers: str) -> str:
        for kind in markers:  # in their order, as they were left
            (tmp_path / f".{kind}-3.11").touch()
        environment = {key: value for key, value in os.environ.items() if "MAKE" not in key}
        options = [f"VENV={tmp_path}", "VERSION=3.11", "CONSTRAINTS=constraints.txt"]
        return subprocess.run(
            ["make", "-n", target, *options],
            cwd=ROOT, env=environment, check=True, capture_output=True, text=True,
        ).stdout  # fmt: skip

    return plan


def test_the_demo_installs_nothing_that_only_tests_need(planned):
    commands = planned("demo")
    assert CLEARED in commands
    assert DEMO in commands
    assert EVERYTHING not in commands


def test_tests_install_everything_at_once(planned):
    commands = planned("venv")
    assert CLEARED in commands
    assert EVERYTHING in commands
    assert DEMO not in commands


def test_tests_add_what_they_need_to_the_environment_of_the_demo(planned):
    commands = planned("venv", "empty", "demo-ready")
    assert EVERYTHING in commands
    assert CLEARED not in commands


def test_an_environment_with_everything_serves_both(planned):
    markers = ("empty", "demo-ready", "ready")
    assert "pip install" not in planned("demo", *markers) + planned("venv", *markers)


def test_an_environment_older_than_the_pins_is_made_anew(planned, tmp_path):
    assert CLEARED not in planned("demo", "empty", "demo-ready", "ready")
    os.utime(tmp_path / ".empty-3.11", (0, 0))
    assert CLEARED in planned("demo")
