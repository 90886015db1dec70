"""Embedding a source in parts: the same table however often it was interrupted."""

import csv
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest

from tests.helpers.onnx_graphs import expected_features, face_network
from tests.helpers.paths import ROOT
from uniface_jax.data.formats.images import decode, encode_png
from uniface_jax.data.sources.photographs import open_images
from uniface_jax.embed.faces import Preparation
from uniface_jax.embed.parts import Parts
from uniface_jax.embed.run import CHUNK_BATCHES, Work, embed_source, left_out_of, sidecar_of
from uniface_jax.errors import UserError
from uniface_jax.inference.model import Model


def first_pixels(images):
    """Return features that tell every image from the others, float32 [B, 5]."""
    return images[:, :5, 3, 1].astype(np.float32) + 1


@pytest.fixture
def work(faces, tmp_path):
    model = Model(first_pixels, "pixels", "0" * 64, "first pixels")
    return Work(model, open_images(str(faces)), Preparation(), 1, tmp_path / "out" / "features.npy")


def run(work):
    return embed_source(work, lambda *lines: None, lambda count: None)


def files(work):
    return {path.name: path.read_bytes() for path in work.output.parent.iterdir()}


def test_rows_are_those_of_the_images_in_their_order(work):
    found = run(work)
    expected = [
        first_pixels(decode(item.image, "")[None])[0]
        for item in map(work.source.__getitem__, range(len(work.source)))
    ]
    np.testing.assert_array_equal(np.load(work.output), expected)
    assert (found["rows"], found["width"], found["left_out"]) == (23, 5, 0)
    with work.output.with_suffix(".names.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == [work.source.item_name(i) for i in range(23)]
    assert [row["person"] for row in rows] == [row["name"].split("/")[0] for row in rows]
    norms = np.array([float(row["norm"]) for row in rows], np.float32)
    np.testing.assert_array_equal(norms, np.linalg.norm(np.load(work.output), axis=1))
    assert rows[0]["box_x"] == rows[0]["score"] == ""


@pytest.mark.parametrize("batches", [0, 3, 17])
def test_a_run_interrupted_anywhere_gives_the_same_files(work, batches, tmp_path):
    """More than one chunk: 23 photographs in chunks of CHUNK_BATCHES."""
    assert 1 < len(work.source) / CHUNK_BATCHES < 2
    run(work)
    left = [batches]

    def ends(images):
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return first_pixels(images)

    broken = replace(
        work, model=replace(work.model, embed=ends), output=tmp_path / "again" / "features.npy"
    )
    with pytest.raises(KeyboardInterrupt):
        run(broken)
    assert not broken.output.exists()
    again = replace(broken, model=work.model)
    run(again)
    assert files(again) == files(work)


def test_a_table_that_is_there_is_not_computed_again(work):
    run(work)
    before = files(work)
    work.model.__dict__["embed"] = None
    assert run(work)["rows"] == 23
    assert files(work) == before


def test_a_changed_table_is_computed_again(work):
    run(work)
    before = files(work)
    work.output.write_bytes(work.output.read_bytes()[:-1])
    run(work)
    assert files(work) == before


def test_two_processes_share_the_chunks(work):
    """One holds the first chunk: the other computes the rest, and leaves the table to it."""
    folder = work.output.with_name("features.npy.parts")
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert holder.stdout.readline() == b"held\n"
    assert run(work) is None
    assert not work.output.exists()
    holder.kill()
    holder.communicate()
    assert run(work)["rows"] == 23


HOLDER = """
import fcntl, sys, pathlib
folder = pathlib.Path(sys.argv[1])
folder.mkdir(parents=True, mode=0o700)
file = (folder / "lock").open("w")
fcntl.lockf(file, fcntl.LOCK_EX, 1, 2)
print("held", flush=True)
sys.stdin.read()
"""


def test_parts_of_other_options_are_not_taken(work):
    folder = work.output.with_name("features.npy.parts")
    said = []
    with Parts(folder, "one", 1, said.append) as parts:
        parts.file(0).write_bytes(b"of other options")
        assert parts.done() == 1
    with Parts(folder, "two", 1, said.append) as parts:
        assert parts.done() == 0
    assert said == [f"{folder}: of other options or photographs; begun anew"]


def test_a_damaged_part_is_not_taken(work):
    with Parts(work.output, "key", 1, print) as parts:
        parts.file(0).write_bytes(bytes(100))
        with pytest.raises(UserError, match="was damaged, and is removed"):
            parts.read(0)
        assert parts.done() == 0


def test_photographs_that_cannot_be_used_are_listed(work, tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "1.png").write_bytes(b"none")
    (photos / "2.png").write_bytes(encode_png(np.full((112, 112, 3), 7, np.uint8)))
    flat = replace(work, source=open_images(str(photos)))
    with pytest.raises(UserError, match=r"1\.png"):
        run(flat)
    found = run(replace(flat, how=Preparation(skip=True)))
    assert (found["rows"], found["left_out"]) == (1, 1)
    with left_out_of(work.output).open() as file:
        ((name, reason),) = list(csv.reader(file))[1:]
    assert (name, "1.png" in reason) == ("1.png", True)
    assert sidecar_of(work.output).is_file()


@pytest.mark.slow
def test_killed_at_ten_moments_the_file_is_the_same(tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (400, 112, 112, 3), dtype=np.uint8)
    for number, pixels in enumerate(noise):
        (photos / f"{number}.png").write_bytes(encode_png(pixels))
    model = face_network(tmp_path / "model.onnx")

    def command(output):
        flags = ["--input_scale=unit", "--nomirror", "--batch_size=1", "--model=model.onnx"]
        return [sys.executable, "-m", "uniface_jax.embed", "photos", *flags, f"--output={output}"]

    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    begun = time.monotonic()
    subprocess.run(command("whole.parquet"), cwd=tmp_path, env=env, check=True, timeout=300)
    seconds, moments = time.monotonic() - begun, random.Random(0)
    for _ in range(10):
        with subprocess.Popen(command("killed.parquet"), cwd=tmp_path, env=env) as process:
            time.sleep(moments.uniform(0.3, 1) * seconds)
            process.send_signal(signal.SIGKILL)
    subprocess.run(command("killed.parquet"), cwd=tmp_path, env=env, check=True, timeout=300)
    whole, killed = ((tmp_path / f"{name}.parquet").read_bytes() for name in ("whole", "killed"))
    assert killed == whole
    import pyarrow.parquet as pq

    table = pq.read_table(tmp_path / "killed.parquet").to_pydict()
    np.testing.assert_allclose(table["feature"], expected_features(noise), rtol=1e-3, atol=1e-3)
    assert model.is_file()
