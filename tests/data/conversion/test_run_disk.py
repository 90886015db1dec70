"""Conversions onto a full disk, and killed at random moments: with real disks and real kills."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

from tests.helpers.paths import ROOT
from uniface_jax.data.conversion.recordio_writer import write_insightface
from uniface_jax.data.formats import images
from uniface_jax.data.formats.tfrecord_info import read_dataset_info
from uniface_jax.data.sources.base import Item

COUNT, CLASSES = 3000, 10


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    """A RecordIO set of 3,000 JPEGs, 9 MB."""
    folder = tmp_path_factory.mktemp("records")
    rng = np.random.default_rng(0)
    jpegs = [images.encode_jpeg(rng.integers(0, 256, (40, 40, 3), np.uint8)) for _ in range(30)]
    items = (Item(jpegs[i % 30], i * CLASSES // COUNT, str(i)) for i in range(COUNT))
    write_insightface(folder, items, COUNT, (40, 40))
    return folder


@pytest.fixture
def small_disk(tmp_path):
    """A tmpfs of 24 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", folder],
        capture_output=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip("mounting a tmpfs is not allowed here")
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_disk_that_fills_keeps_the_finished_shards(
    records, small_disk, tmp_path, run_cli, workers
):
    size = (records / "train.rec").stat().st_size
    flags = ("--shard_size=150", f"--workers={workers}", "--name=small")
    undisturbed = run_cli("convert", records, tmp_path / "whole", *flags)
    assert undisturbed.returncode == 0, undisturbed.stderr

    hog = small_disk / "hog"
    destination = small_disk / "set"
    free = shutil.disk_usage(small_disk).free
    with hog.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, free - size // 2)
    refused = run_cli("convert", records, destination, *flags)
    assert refused.returncode == 2
    assert "MiB are needed for 3000 images; nothing was written" in refused.stderr

    # The check is passed, and then another program takes the space.
    code = (
        "import sys\n"
        "from uniface_jax.data.conversion import run\n"
        "run._check_space = lambda *_: None\n"
        "from uniface_jax import cli, convert\n"
        "cli.run(convert.main)"
    )
    full = subprocess.run(
        [sys.executable, "-c", code, records, destination, *flags], capture_output=True, text=True
    )
    assert full.returncode == 2, full.stderr
    assert full.stderr.startswith("error: ")
    assert full.stderr.count("\n") == 1
    assert "the disk is full; finished shards are kept" in full.stderr
    kept = {file.name: file.stat().st_mtime_ns for file in destination.glob("small-train*")}
    assert 2 < len(kept) < 20
    assert not list(destination.rglob("*.tmp"))
    assert not (destination / "dataset_info.json").exists()

    hog.unlink()
    resumed = run_cli("convert", records, destination, *flags)
    if resumed.returncode and "MiB are needed" in resumed.stderr:
        subprocess.run(["mount", "-o", "remount,size=64m", small_disk], check=True)
        resumed = run_cli("convert", records, destination, *flags)
    assert resumed.returncode == 0, resumed.stderr
    for name, time in kept.items():
        assert (destination / name).stat().st_mtime_ns == time
    whole = {file.name: file.read_bytes() for file in (tmp_path / "whole").iterdir()}
    assert {file.name: file.read_bytes() for file in destination.iterdir()} == whole
    assert read_dataset_info(destination).num_examples == COUNT


@pytest.mark.slow
def test_killed_at_random_moments_the_result_is_the_same(tmp_path):
    """20 kills of a small conversion; the full-size run is the script's default."""
    command = [sys.executable, "scripts/bench_convert.py", "--records=20000", "--rounds=1"]
    command += ["--kills=20", "--shard_size=500", f"--folder={tmp_path / 'bench'}"]
    command += [f"--json={tmp_path / 'result.json'}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["kills"] == 20
    assert result["bit-identical"] == result["completed"] > 0
    assert max(result["finished shards at each kill"]) > 0
    assert result["highest memory MB"] < 1000
