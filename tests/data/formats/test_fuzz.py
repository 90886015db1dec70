"""A small part of what scripts/fuzz_readers.py does: every reader, some thousand damaged files."""

import json
import subprocess
import sys

import pytest

from tests.helpers.paths import ROOT

# By name, and how many inputs of each are tried.
OWN, OTHERS = (
    "recordio,bin,manifest,list,tar,tfrecord,example",
    "tar.gz,xz,lmdb,parquet,arrow,tface",
)


@pytest.mark.parametrize(
    ("readers", "each"),
    [
        (f"{OWN},{OTHERS}", 100),
        pytest.param(OWN, 1000, marks=pytest.mark.slow),
        pytest.param(OTHERS, 200, marks=pytest.mark.slow),
    ],
)
def test_readers_refuse_damaged_files_in_one_line(tmp_path, readers, each):
    done = subprocess.run(
        [
            sys.executable,
            "scripts/fuzz_readers.py",
            f"--inputs={each * len(readers.split(','))}",
            f"--readers={readers}",
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
        assert row["inputs"] >= each
        # Not everything is so broken that only the first check sees it.
        assert row["read"] > each / 100
        assert row["refused"] > each / 10
