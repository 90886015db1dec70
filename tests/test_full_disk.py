"""Outputs on a disk of 400 KB that is full from the start, or becomes so: every command says it.

One line names the file, the status is that of the table, and what is there is whole.
"""

import json
import re
import shutil
import subprocess

import cv2
import numpy as np
import pytest

from tests.helpers import small_workdir
from tests.helpers.disks import fill
from tests.helpers.paths import ROOT
from uniface_jax.checkpoints import reading

PAIRS = ROOT / "tests" / "cases" / "field" / "06-bin-by-numpy" / "control_ok.bin"
SECONDS = 120  # on a busy machine

# The command, and of each number of free KB those at which what it writes does not fit.
COMMANDS = {
    "convert": ("convert {faces} {disk}/set", (0, 300)),
    "unpack": ("unpack {faces} {disk}/folders", (0, 40)),
    "evaluate": ("evaluate --model={workdir} --data={pairs} --output={disk}/o", (0, 4, 16)),
    "cache": (
        "evaluate --model={workdir} --data={pairs} --output={out}/o --cache={disk}/c",
        (0, 1),
    ),
    "export": ("export --workdir={workdir} --output={disk}/m.onnx", (0, 8, 80)),
    "safetensors": (
        "export --workdir={workdir} --format=safetensors --output={disk}/m.safetensors",
        (0, 40),
    ),
    "stablehlo": ("export --workdir={workdir} --format=stablehlo --output={disk}/m.hlo", (40,)),
    "savedmodel": ("export --workdir={workdir} --format=savedmodel --output={disk}/m", (40,)),
    "inspection": ("inspection --workdir={workdir} --output={disk}/i", (0, 40, 120)),
    "show": ("show {faces} --output={disk}/s.png", (0, 8)),
    "plan": ("plan --config=demo --images=30 --classes=3 --json={disk}/p.json", (0,)),
    "make_pairs": ("make_pairs {faces} {disk}/p.bin", (0, 4)),
    "import_weights": ("import_weights {safetensors} {disk}/run", (0, 40)),
}
FAST = ("cache", "show")


@pytest.fixture(scope="module")
def workdir(forked, tmp_path_factory):
    return small_workdir.make(forked, tmp_path_factory.mktemp("made"))[0]


@pytest.fixture(scope="module")
def safetensors(forked, workdir):
    file = workdir.parent / "m.safetensors"
    command = ["export", f"--workdir={workdir}", "--format=safetensors", f"--output={file}"]
    assert forked.run(command, workdir, workdir / "log").returncode == 0
    return file


@pytest.fixture
def disk(tmp_path):
    """Make a function that mounts an empty disk of 400 KB; each replaces the one before."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount():
        subprocess.run(["umount", "-l", str(folder)], capture_output=True)
        command = ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(folder)]
        if subprocess.run(command, capture_output=True).returncode:
            pytest.skip("mounting is not allowed here")
        return folder

    yield mount
    subprocess.run(["umount", "-l", str(folder)], capture_output=True)


def leave_free(disk, kilobytes):
    """Fill the disk but for so many KB."""
    filler = fill(disk)
    with filler.open("r+b") as file:
        file.truncate(filler.stat().st_size - kilobytes * 1024)


def assert_whole(disk):
    """Whatever has a final name can be read to its end, and nothing else was left."""
    for file in disk.rglob("*"):
        assert not file.name.endswith(".tmp"), file
        if file.suffix == ".json":
            json.loads(file.read_text())
        elif file.suffix == ".png":
            assert cv2.imread(str(file)) is not None, file
        elif file.suffix == ".npy":
            np.load(file, allow_pickle=False)


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[] if name in FAST else pytest.mark.slow) for name in COMMANDS],
)
def test_a_full_disk_is_said_in_one_line(name, forked, workdir, disk, tmp_path, request):
    command, kilobytes = COMMANDS[name]
    places = {"workdir": workdir, "pairs": PAIRS, "out": tmp_path / "out"}
    places["faces"] = workdir.parent.parent / "faces"
    if "{safetensors}" in command:
        places["safetensors"] = request.getfixturevalue("safetensors")
    for free in kilobytes:
        shutil.rmtree(places["out"], ignore_errors=True)
        folder = disk()
        leave_free(folder, free)
        words = command.format(**places, disk=folder).split()
        ended = forked.run(words, tmp_path, tmp_path / "log", None, SECONDS)
        said = f"{free} KB free: {words}\n{ended.output}"
        assert ended.returncode == 2, said
        assert "Traceback" not in ended.output, said
        last = ended.output.rstrip().rpartition("\n")[2]
        assert re.match(rf"error: {re.escape(str(folder))}/\S+: ", last), said
        (folder / "filler").unlink()
        assert_whole(folder)


@pytest.mark.slow
def test_a_training_that_cannot_be_saved_says_so_and_stops(forked, workdir, disk, tmp_path):
    faces = workdir.parent.parent / "faces"
    for free, status in ((0, 2), (16, 1), (200, 1)):
        folder = disk()
        leave_free(folder, free)
        command = [
            "train", *small_workdir.TRAIN, f"--config.data.train={faces}",
            f"--workdir={folder / 'run'}",
        ]  # fmt: skip
        ended = forked.run(command, tmp_path, tmp_path / "log", None, 2 * SECONDS)
        said = f"{free} KB free\n{ended.output}"
        assert ended.returncode == status, said
        assert "Traceback" not in ended.output, said
        last = ended.output.rstrip().rpartition("\n")[2]
        kind = "error" if status == 2 else "stopped"
        assert re.match(rf"{kind}: {re.escape(str(folder))}/run\S*: ", last), said
        (folder / "filler").unlink()
        assert not reading.is_begun(folder / "run"), said
        # The same command, now that there is room for the next one.
        if free:
            assert_whole(folder)
