"""A small part of what scripts/fuzz_readers.py does: every reader, some thousand damaged files."""

import json
import subprocess
import sys

from tests.helpers.paths import ROOT


def test_readers_refuse_damaged_files_in_one_line(tmp_path):
    done = subprocess.run(
        [
            sys.executable,
            "scripts/fuzz_readers.py",
            "--inputs=7000",
            "--processes=1",
            "--seed=7",
            f"--failures={tmp_path / 'failures'}",
            f"--json={tmp_path / 'result.json'}",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads((tmp_path / "result.json").read_text())
    for row in result.values():
        assert row["inputs"] >= 1000
        assert row["read"] > 10  # not everything is so broken that only the first check sees it
        assert row["refused"] > 100
