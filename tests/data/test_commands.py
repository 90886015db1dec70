"""The command lines as a user runs them."""

import json

import pytest

from uniface_jax.data.formats import images
from uniface_jax.data.formats.bin_pairs import read_pairs
from uniface_jax.data.formats.tfrecord_info import read_dataset_info
from uniface_jax.data.sources.opening import open_source


@pytest.fixture(scope="module")
def demo(run_cli, tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo") / "orl"
    done = run_cli("demo_data", folder)
    assert done.returncode == 0, done.stderr
    return folder


def test_demo_data(demo, run_cli):
    info = read_dataset_info(demo / "train")
    assert (info.num_examples, info.num_classes) == (300, 30)
    assert info.class_names == [f"s{i}" for i in range(1, 31)]
    assert info.image_shape == (112, 112, 3)
    pairs = read_pairs(demo / "orl.bin")
    assert (len(pairs), len(pairs.images), pairs.same.sum()) == (4950, 100, 450)
    assert pairs.same.reshape(10, 495).sum(1).tolist() == [45] * 10
    assert {images.decode(image, "x").shape for image in pairs.images} == {(112, 112, 3)}
    unseen = {f.read_bytes() for i in range(31, 41) for f in (demo / "aligned" / f"s{i}").iterdir()}
    assert set(pairs.images) == unseen
    report = json.loads((demo / "aligned" / "alignment.json").read_text())
    assert (report["aligned"], report["no_face"]) == (400, [])

    before = {file: file.stat().st_mtime_ns for file in demo.rglob("*")}
    again = run_cli("demo_data", demo)
    assert again.returncode == 0
    assert "complete already" in again.stdout
    assert {file: file.stat().st_mtime_ns for file in demo.rglob("*")} == before


def test_convert(faces, run_cli, tmp_path):
    done = run_cli("convert", faces, tmp_path / "set", "--shard_size=9", "--name=mine")
    assert done.returncode == 0, done.stderr
    assert "23 images of 3 classes in 3 shards" in done.stdout
    assert len(open_source(tmp_path / "set")) == 23
    (tmp_path / "empty" / "ann").mkdir(parents=True)
    failed = run_cli("convert", tmp_path / "empty", tmp_path / "other")
    assert failed.returncode == 2
    assert failed.stderr.startswith("error: ")
    assert failed.stderr.count("\n") == 1
    assert "empty/ann: an identity folder without an image" in failed.stderr


def test_align(demo, run_cli, tmp_path):
    (tmp_path / "photos" / "ann").mkdir(parents=True)
    photo = (demo / "aligned" / "s3" / "1.png").read_bytes()
    (tmp_path / "photos" / "ann" / "1.png").write_bytes(photo)
    (tmp_path / "photos" / "ann" / "2.png").write_bytes(photo[:100])
    done = run_cli("align", tmp_path / "photos", tmp_path / "faces")
    assert done.returncode == 0, done.stderr
    assert "ann/2.png: not an image, left out" in done.stdout
    assert "1 faces aligned" in done.stdout
    assert (tmp_path / "faces" / "ann" / "1.png").is_file()
    failed = run_cli("align", tmp_path / "photos")
    assert failed.returncode == 2
    assert "expected 2 arguments: SOURCE DEST" in failed.stderr
