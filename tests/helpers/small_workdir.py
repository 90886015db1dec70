"""A workdir of two steps of a thin demo, and its ONNX, made by the commands of a user."""

import fcntl
import os
import shutil
from pathlib import Path

from tests.helpers.forked_commands import ForkedCommands
from tests.helpers.paths import ROOT

FACES = ROOT / "tests" / "cases" / "field" / "09-unusable-training-image" / "faces"
TRAIN = (
    "--config=demo", "--config.model.width=4", "--config.batch_size=4", "--config.steps=2",
    "--config.eval.data=", "--config.data.prepare=",
)  # fmt: skip


def make(commands: ForkedCommands, folder: Path) -> tuple[Path, Path]:
    """Make (workdir, its model.onnx) in runs/demo of `folder`, of the faces in its faces/.

    The first who asks in a session has it made, for the files of all workers: each has a copy.
    """
    kept = Path(os.environ["UNIFACE_TESTS_FOLDER"]) / "small_workdir"
    whole = kept / "whole"
    kept.mkdir(exist_ok=True)
    with (kept / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # let go of where it is closed
        if not whole.exists():
            begun = kept / "begun"
            shutil.rmtree(begun, ignore_errors=True)
            begun.mkdir()
            _make(commands, begun)
            begun.rename(whole)
    shutil.copytree(whole, folder, dirs_exist_ok=True)
    return folder / "runs" / "demo", folder / "runs" / "demo" / "model.onnx"


def _make(commands: ForkedCommands, folder: Path) -> None:
    clean = folder.parent / "faces"  # which the workdir names, and which stays there
    for image in sorted(FACES.glob("*/[0-5].png")):
        (clean / image.parent.name).mkdir(parents=True, exist_ok=True)
        (clean / image.parent.name / image.name).write_bytes(image.read_bytes())
    shutil.copytree(clean, folder / "faces")
    for command in (
        ["train", *TRAIN, f"--config.data.train={clean}", "--workdir=runs/demo"],
        ["export", "--workdir=runs/demo", "--output=runs/demo/model.onnx"],
    ):
        ended = commands.run(command, folder, folder / "log")
        assert ended.returncode == 0, ended.output
