"""The script for a lent GPU, which must work at its first call: all of it, in its smallest form."""

import json
import os
import subprocess
import sys

import gpu_in_ten_minutes as script
import pytest

from tests.helpers.compilation import FAST_COMPILATION
from tests.helpers.paths import ROOT


def call(output, *flags):
    command = [sys.executable, "scripts/gpu_in_ten_minutes.py", f"--output={output}", *flags]
    env = {**os.environ, "XLA_FLAGS": FAST_COMPILATION}  # one device, as where a GPU is lent
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    return done, json.loads((output / "summary.json").read_text())["parts"]


@pytest.mark.slow
def test_every_kind_of_part_in_its_smallest_form(tmp_path):
    done, parts = call(tmp_path, "--smallest", "--seconds=1200")
    assert {name: part["status"] for name, part in parts.items()} == dict.fromkeys(
        script.smallest_parts(), 0
    ), done.stdout + done.stderr
    assert done.returncode == 0
    (row,) = json.loads((tmp_path / "step.json").read_text())["rows"]
    assert row["milliseconds"] > 0
    assert "loss" in parts["training"]["printed"]
    assert (tmp_path / "training").is_dir()


def test_what_has_no_time_is_told(tmp_path):
    done, parts = call(tmp_path, "--smallest", "--seconds=0")
    assert {part["status"] for part in parts.values()} == {"left out: no time"}
    assert done.returncode == 1


def test_a_part_that_fails_or_takes_too_long_is_told(tmp_path):
    slow = script.Part(["-c", "print('began', flush=True); import time; time.sleep(60)"], 60)
    found = script.run(slow, tmp_path, tmp_path / "slow.txt", 1.0)
    assert found["status"] == "ended after 1 s"
    bad = script.Part(["-c", "raise SystemExit('no such card')"], 60)
    found = script.run(bad, tmp_path, tmp_path / "bad.txt", 60)
    assert (found["status"], found["printed"]) == (1, "no such card\n")


def test_every_command_is_one_that_is_there():
    """Take the flags of both lists by their scripts' own parsers, and the tests by their paths."""
    for part in (*script.parts(None, None).values(), *script.smallest_parts().values()):
        words = [word for word in part.command if not word.startswith("-")]
        files = [word for word in words if word.startswith(("scripts/", "tests/"))]
        assert all((ROOT / name).exists() for name in files), files
        if files and files[0].startswith("scripts/bench"):
            text = (ROOT / files[0]).read_text()
            flags = {word.partition("=")[0] for word in part.command if word.startswith("--")}
            assert all(f'"{flag}"' in text for flag in flags), flags
