"""Jobs of conversions: compared with what was begun, and refused before work."""

import json
import os
import shutil
from dataclasses import replace

import numpy as np
import pytest

from tests.helpers.conversion import FACES
from uniface_jax.data.conversion.job import (
    FOLDER,
    JOB_FILE,
    Job,
    create_job,
    default_shard_size,
    difference,
    read_job,
    write_job,
)
from uniface_jax.data.conversion.run import convert
from uniface_jax.data.conversion.unpacking import write_folders
from uniface_jax.data.conversion.verify import verify
from uniface_jax.data.formats import images
from uniface_jax.data.sources.folders import FolderSource
from uniface_jax.data.sources.opening import open_source
from uniface_jax.errors import UserError


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(seed=5), "seed 0, not 5"),
        (dict(shard_size=9), "shard_size 4, not 9"),
        (dict(check="decode"), "check 'structure', not 'decode'"),
        (dict(name="other"), "name 'faces', not 'other'"),
    ],
)
@pytest.mark.parametrize("complete", [True, False])
def test_other_work_is_not_mixed_in(source, undisturbed, tmp_path, change, message, complete):
    if complete:
        folder, what = undisturbed, "already holds a data set of"
    else:
        folder, what = tmp_path / "set", "holds the beginning of another conversion:"
        convert(source, folder, FACES, part=(0, 2))
    with pytest.raises(UserError, match=f"set: {what} {message}"):
        convert(source, folder, replace(FACES, **change))


def test_a_changed_source_is_noticed(faces, tmp_path):
    copy = shutil.copytree(faces, tmp_path / "faces")
    convert(FolderSource(copy), tmp_path / "set", FACES, part=(0, 2))
    (copy / "s1" / "1.jpg").rename(copy / "s1" / "99.jpg")
    with pytest.raises(UserError, match="another source, or a source that has changed since"):
        convert(FolderSource(copy), tmp_path / "set", FACES)
    for file in (tmp_path / "set").glob("faces-*"):
        file.unlink()
    assert convert(FolderSource(copy), tmp_path / "set", FACES)


@pytest.mark.parametrize(
    ("names", "stored"),
    [
        ((b"ann", b"a\nb"), ["a\\nb", "ann"]),
        ((b"ann", b"a\xff"), ["ann", "a\\xff"]),
        ((b"ann", b"\xe3\x80\x80"), ["ann", "_"]),
        ((b"ann", b" ann"), ["ann-0", "ann"]),
        ((b"a\xff", b"a\\xff"), ["a\\xff", "a\\xff-1"]),
    ],
)
def test_names_of_classes_that_no_line_can_hold_are_escaped(names, stored, tmp_path):
    for name in names:
        folder = tmp_path / "f" / os.fsdecode(name)
        folder.mkdir(parents=True)
        (folder / "1.png").write_bytes(images.encode_png(np.zeros((8, 8, 3), np.uint8)))
    source = FolderSource(tmp_path / "f")
    info = convert(source, tmp_path / "set", FACES)
    assert info.class_names == stored
    assert verify(source, tmp_path / "set").images == len(names)


def test_shard_sizes():
    assert default_shard_size(490_623) == 20_000
    assert -(-42_474_557 // default_shard_size(42_474_557)) <= 512


def test_a_job_is_read_as_it_was_written(source, tmp_path):
    job = create_job(source, FACES)
    assert read_job(tmp_path) is None
    write_job(tmp_path, job)
    assert read_job(tmp_path) == job
    assert difference(job, replace(job, source="elsewhere", description="other")) is None
    assert "fingerprint" not in difference(job, replace(job, fingerprint="0"))


def test_a_job_begun_by_version_0_1_is_read(tmp_path):
    """plan.json as commit ec4f2e5 wrote it, when a job was called a plan."""
    written = {
        "name": "faces", "seed": 1, "shard_size": 10, "check": "structure", "on_error": "fail",
        "images": 23, "num_classes": 3, "fingerprint": "5e2b", "class_names": ["a", "b", "c"],
        "source": "faces", "description": "",
    }  # fmt: skip
    (tmp_path / FOLDER).mkdir()
    (tmp_path / FOLDER / "plan.json").write_text(json.dumps(written, indent=1))
    assert read_job(tmp_path) == Job(**written)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": "1"}, "seed is a str"),
        ({"class_names": ["a"]}, "class_names is a list"),
        ({"more": 1}, "unexpected keyword argument 'more'"),
        ({"shard_size": 0}, "23 images in shards of 0"),
    ],
)
def test_malformed_jobs_are_named(source, tmp_path, change, message):
    write_job(tmp_path, create_job(source, FACES))
    file = tmp_path / FOLDER / JOB_FILE
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    with pytest.raises(UserError, match=rf"plan\.json: .*{message}.*; remove it"):
        read_job(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "1"}, "name '1': a data set's name is letters"),
        ({"shard_size": 0}, "shard_size 0: expected 1 or more"),
        ({"check": "none"}, "check 'none': expected one of structure, decode"),
        ({"on_error": "go"}, "on_error 'go': expected one of fail, skip"),
    ],
)
def test_settings_that_are_not_allowed(change, message):
    with pytest.raises(UserError, match=message):
        replace(FACES, **change)


@pytest.mark.parametrize(
    "name",
    [b"<img src=x>\x1b]0;x\x07", b"p\nnewline", b"$\\frac{$", b"caf\xe9", b"\xe2\x80\xae"],
    ids=repr,
)
def test_odd_names_are_converted_and_come_back(name, tmp_path):
    for person in (name, b"ann"):
        folder = tmp_path / "f" / os.fsdecode(person)
        folder.mkdir(parents=True)
        pixels = np.full((112, 112, 3), len(person), np.uint8)
        (folder / os.fsdecode(name + b".png")).write_bytes(images.encode_png(pixels))
    source = FolderSource(tmp_path / "f")
    info = convert(source, tmp_path / "set", FACES)
    assert verify(source, tmp_path / "set").images == 2
    assert all(each.isprintable() for each in info.class_names)
    found = open_source(tmp_path / "set")
    assert sorted(item.image for item in found) == sorted(item.image for item in source)
    write_folders(found, tmp_path / "out")
    assert len(FolderSource(tmp_path / "out")) == 2
    assert {path.name for path in tmp_path.iterdir()} == {"f", "set", "out"}
