"""FIFOs, devices, sockets and circles of links where a command expects a file, and places without.

Every command ends in one line and status 2, in seconds, whatever a path leads to.
"""

import os
import shutil
import socket

import pytest

from tests.helpers.paths import ROOT

CASES = ROOT / "tests" / "cases"
PAIRS = CASES / "field" / "06-bin-by-numpy" / "control_ok.bin"
FACES = CASES / "field" / "17-own-pairs" / "faces"
SECONDS = 60  # on a busy machine; what waits for ever is what is looked for
PARTS = ["set/dataset_info.json", "results/metrics.json"]
KINDS = ["fifo", "device", "socket", "circle"]

# What stands in the folder {at}, and the command that reads it.
READ = {
    "list.txt": "convert {at}/list.txt {out}/set",
    "a.tar": "convert {at}/a.tar {out}/set",
    "a.rec": "convert {at}/a.rec {out}/set",
    "faces/ann/1.png": "convert {at}/faces {out}/set",
    "set/dataset_info.json": "convert {at}/set {out}/set",
    "pairs.bin": "evaluate --embeddings={at}/good.npy --data={at}/pairs.bin --output={out}/o",
    "a.npy": "evaluate --embeddings={at}/a.npy --data={pairs} --output={out}/o",
    "a.onnx": "evaluate --model={at}/a.onnx --data={pairs} --output={out}/o",
    "w.pth": "import_weights {at}/w.pth {out}/run",
    "w.npz": "import_weights {at}/w.npz {out}/run",
    "w.safetensors": "import_weights {at}/w.safetensors {out}/run",
    "m.onnx": "export --check={at}/m.onnx",
    "m.zip": "export --check={at}/m.zip",
    "recipe.py": "train --config={at}/recipe.py",
    "results/metrics.json": "evaluate --compare {at}/results {at}/results --output={out}/o",
    "run/config.json": "train --config=demo --config.data.train={faces} --config.steps=2 "
    "--config.batch_size=4 --config.eval.data= --config.data.prepare= --workdir={at}/run",
    "run/lock": "train --config=demo --config.data.train={faces} --config.steps=2 "
    "--config.batch_size=4 --config.eval.data= --config.data.prepare= --workdir={at}/run",
    "run/layout.json": "train --config=demo --config.data.train={faces} --config.steps=2 "
    "--config.batch_size=4 --config.eval.data= --config.data.prepare= --workdir={at}/run",
}
WRITTEN = [
    "align {faces} /proc/nothing/faces",
    "convert {faces} /proc/nothing/set",
    "unpack {faces} /proc/nothing/folders",
    "show {faces} --output=/proc/nothing/s.png",
    "export --workdir={out}/run --output=/proc/nothing/m.onnx",
    "export --check={out}/m.onnx --report=/proc/nothing/r.json",
    "import_weights {out}/w.npz /proc/nothing/run",
    "plan --config=demo --images=30 --classes=3 --json=/proc/nothing/p.json",
    "evaluate --model={onnx} --data={pairs} --output=/proc/nothing/o",
    "demo_data /proc/nothing/faces",
]


def plant(kind, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "circle":
        path.symlink_to(path.name)
    else:
        here = os.open(path.parent, os.O_RDONLY)  # a socket's path has 108 bytes at most
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(f"/proc/self/fd/{here}/{path.name}")
        os.close(here)


def refused(forked, command, tmp_path, env=None):
    (tmp_path / "out").mkdir(exist_ok=True)
    filled = command.format(
        at=tmp_path / "at",
        out=tmp_path / "out",
        pairs=PAIRS,
        faces=FACES,
        onnx=CASES / "field" / "11-onnx-other-shapes" / "two_outputs.onnx",
    )
    ended = forked.run(filled.split(), tmp_path, tmp_path / "log", env, SECONDS)
    assert ended.returncode == 2, f"{command}\n{ended.output}"
    assert "Traceback" not in ended.output
    assert ended.output.rstrip().rpartition("\n")[2].startswith("error: "), ended.output
    assert ended.peak_bytes < 10**9
    return ended.output


@pytest.mark.parametrize("name", READ)
def test_what_is_no_file_is_refused(name, forked, tmp_path):
    # A FIFO at each place; the others are the same to open_regular.
    for kind in KINDS if name in ("list.txt", "a.npy") else KINDS[:1]:
        shutil.rmtree(tmp_path / "at", ignore_errors=True)
        plant(kind, tmp_path / "at" / name)
        if name.startswith("run/"):  # of a run that has begun: what left no checkpoint owns nothing
            (tmp_path / "at" / "run" / "checkpoints" / "1").mkdir(parents=True)
        if name == "pairs.bin":
            shutil.copy(CASES / "hostile" / "25-npy" / "zero.npy", tmp_path / "at" / "good.npy")
        said = refused(forked, READ[name], tmp_path)
        # A folder of which this was to be a part may be taken for another kind of folder.
        assert str(tmp_path / "at" / name) in said or name in PARTS, said


@pytest.mark.parametrize("command", WRITTEN)
def test_where_nothing_can_be_written_is_said_in_one_line(command, forked, tmp_path):
    assert "/proc" in refused(forked, command, tmp_path)


def test_without_a_home_commands_work(forked, tmp_path):
    convert = ["convert", str(FACES), str(tmp_path / "set")]
    ended = forked.run(convert, tmp_path, tmp_path / "log", {"HOME": "/nonexistent"}, SECONDS)
    assert ended.returncode == 0, ended.output
