"""Every end of a run that has a good state leaves it saved, and the next start goes on from it."""

import json
import re
import shutil
import struct
import zlib

import jax
import numpy as np
import pytest

from tests.helpers import demo_run
from uniface_jax.checkpoints import reading
from uniface_jax.data.formats.bin_pairs import write_pairs
from uniface_jax.data.input.sampler import Sampler
from uniface_jax.data.sources.folders import FolderSource
from uniface_jax.errors import UserError
from uniface_jax.train.run import prefetch

BATCH = 16


def undecodable() -> bytes:
    """A PNG of 112x112 whose structure is whole and whose pixels are noise."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + checksum

    head = struct.pack(">IIBBBBB", 112, 112, 8, 2, 0, 0, 0)
    parts = chunk(b"IHDR", head) + chunk(b"IDAT", b"no pixels at all") + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    """Identity folders, of which the third batch holds the first image that cannot be decoded."""
    folder = tmp_path_factory.mktemp("data")
    demo_run.make_data(folder)
    people = FolderSource(folder / "people")
    batches = [Sampler(BATCH, 0).indices(step, len(people))[1].tolist() for step in range(3)]
    record = next(r for r in batches[2] if r not in batches[0] + batches[1])
    (folder / "people" / people.item_name(record)).write_bytes(undecodable())
    return folder / "people", people.item_name(record)


def flags(train, **overrides):
    return demo_run.flags(train, **{"steps": 6, "log.every_steps": 1, **overrides})


@pytest.fixture(scope="module")
def failed(faces, tmp_path_factory, run_cli):
    """The workdir of a run on these faces, and how it ended."""
    workdir = tmp_path_factory.mktemp("runs") / "failed"
    return workdir, run_cli("train", f"--workdir={workdir}", *flags(faces[0]))


def test_an_image_that_cannot_be_decoded_costs_no_step(faces, failed):
    workdir, done = failed
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    (line,) = [text for text in done.stderr.splitlines() if text.startswith("error: ")]
    words = rf"\({faces[1]}\).*; step 2 is saved, and the same command resumes there"
    assert re.search(words, line)
    assert reading.locate(workdir) == (workdir, 2)


@pytest.mark.slow
def test_others_stand_in_for_bad_images_the_same_after_a_resume(faces, failed, tmp_path, run_cli):
    workdir = shutil.copytree(failed[0], tmp_path / "run")
    for folder in (workdir, tmp_path / "whole"):
        arguments = flags(faces[0], **{"data.on_error": "skip"})
        done = run_cli("train", f"--workdir={folder}", *arguments)
        assert done.returncode == 0, done.stderr
        assert "cannot be used; another one stands in for it" in done.stderr
        assert (f"resumed {workdir} at step 2" in done.stdout) == (folder == workdir)
    people = FolderSource(faces[0])
    bad = [people.item_name(index) for index in range(len(people))].index(faces[1])
    drawn = Sampler(BATCH, 0).indices(np.arange(6), len(people))[1]
    lines = [json.loads(text) for text in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert [entry["step"] for entry in lines] == [1, 2, 3, 4, 5, 6]
    assert lines[-1]["skipped_images"] == np.count_nonzero(drawn == bad)
    ours, theirs = reading.read(workdir)[0], reading.read(tmp_path / "whole")[0]
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


@pytest.mark.slow
def test_a_repaired_set_is_refused_with_the_way_on(faces, failed, tmp_path, run_cli):
    people, name = faces
    workdir = shutil.copytree(failed[0], tmp_path / "run")
    (people / name).unlink()
    try:
        done = run_cli("train", f"--workdir={workdir}", *flags(people))
        assert done.returncode == 2
        words = (
            "num_examples is 39, but the run was trained on 40; .*--config.data.on_change=accept"
        )
        assert re.search(words, done.stderr)
        accept = {"data.on_change": "accept"}
        done = run_cli("train", f"--workdir={workdir}", *flags(people, **accept))
        assert done.returncode == 0, done.stderr
        assert "going on with the set as it is now" in done.stderr
        assert f"resumed {workdir} at step 2" in done.stdout
    finally:
        (people / name).write_bytes(undecodable())


def test_a_step_is_saved_before_it_is_evaluated(faces, tmp_path, run_cli):
    people, _ = faces
    images = [path.read_bytes() for path in sorted(people.rglob("*.png"))]  # one is undecodable
    first, second = np.arange(40) % len(images), np.arange(1, 41) % len(images)
    write_pairs(tmp_path / "val.bin", images, first, second, first < 20)
    evaluated = {"eval.data": tmp_path / "val.bin", "eval.every_steps": 2, "checkpoint.keep": 2}
    workdir = tmp_path / "run"
    train = demo_run.flags("synthetic:5:40", **evaluated)
    done = run_cli("train", f"--workdir={workdir}", *train)
    assert done.returncode == 2, done.stderr
    assert re.search(r"error: val: image \d+.*; step 2 is saved", done.stderr)
    assert reading.locate(workdir) == (workdir, 2)


def test_the_batches_before_a_failure_are_given_first():
    def failing():
        for number in range(5):
            yield {"image": number, "label": number, "index": number}
        raise UserError("record 5 is bad")

    stream = prefetch(failing(), lambda batch: batch)
    assert [next(stream)[0]["index"] for _ in range(5)] == [0, 1, 2, 3, 4]
    with pytest.raises(UserError, match="record 5 is bad"):
        next(stream)
