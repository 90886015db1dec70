"""Conversion: what is written, resumed, refused, verified; the processes as a user runs them."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from tests.helpers.conversion import FACES, tree
from uniface_jax.data.conversion import run
from uniface_jax.data.conversion.finish import finish
from uniface_jax.data.conversion.job import FOLDER, ConversionSettings
from uniface_jax.data.conversion.manifest import read_manifest
from uniface_jax.data.conversion.run import convert, write_dataset
from uniface_jax.data.conversion.verify import verify
from uniface_jax.data.formats import images
from uniface_jax.data.formats.tfrecord_info import read_dataset_info
from uniface_jax.data.sources.folders import FolderSource
from uniface_jax.data.sources.opening import open_source
from uniface_jax.errors import UserError


def test_processes_and_parts_change_nothing(source, undisturbed, tmp_path):
    convert(source, tmp_path / "two", FACES, workers=2)
    assert tree(tmp_path / "two") == tree(undisturbed)
    for part in range(3):
        info = convert(source, tmp_path / "parts", FACES, part=(part, 3))
        assert info is None
        if part < 2:
            with pytest.raises(UserError, match=rf"{2 * (2 - part)} of 6 shards are missing: fac"):
                finish(tmp_path / "parts")
        with pytest.raises(UserError, match=r"dataset_info\.json: No such file"):
            read_dataset_info(tmp_path / "parts")
    assert finish(tmp_path / "parts").num_examples == 23
    assert finish(tmp_path / "parts").num_examples == 23  # once more does nothing
    assert tree(tmp_path / "parts") == tree(undisturbed)


def test_finished_shards_are_kept_and_half_written_ones_are_not(
    source, undisturbed, tmp_path, monkeypatch
):
    class StoppedError(Exception):
        pass

    written = []

    def stop(task, tick):
        if len(written) == 3:
            task.file.with_name(f".{task.file.name}.dead.tmp").write_bytes(b"half")
            raise StoppedError
        written.append(task.file.name)
        return real(task, tick)

    real = run.write_shard
    monkeypatch.setattr(run, "write_shard", stop)
    monkeypatch.setattr(run, "_remove_temporary", lambda *_: None)
    with pytest.raises(StoppedError):
        convert(source, tmp_path / "set", FACES)
    monkeypatch.undo()
    kept = {name: (tmp_path / "set" / name).stat().st_mtime_ns for name in written}
    shorter = tmp_path / "set" / written[0]
    shorter.write_bytes(shorter.read_bytes()[:-1])
    assert list((tmp_path / "set").glob(".*.tmp"))
    (tmp_path / "set" / ".manifest.json.dead.tmp").write_bytes(b"half")  # a finish was killed once
    (tmp_path / "set" / ".metadata.dead").mkdir()
    convert(source, tmp_path / "set", FACES)
    assert tree(tmp_path / "set") == tree(undisturbed)
    for name in written[1:]:
        assert (tmp_path / "set" / name).stat().st_mtime_ns == kept[name]
    (tmp_path / "set" / ".statistics.png.dead.tmp").write_bytes(b"half")
    convert(source, tmp_path / "set", FACES)  # complete already
    assert not list((tmp_path / "set").glob(".*"))


@pytest.mark.parametrize(
    "name", ["insightface", "im2rec", "bins/py3.bin", "bins/py2.bin", "bins/numpy.bin"]
)
def test_fixtures_are_converted_byte_for_byte(fixtures_folder, tmp_path, name):
    source = open_source(fixtures_folder / name)
    convert(source, tmp_path / "set", ConversionSettings("fixture", shard_size=7))
    assert verify(source, tmp_path / "set").images == len(source)
    assert sorted(open_source(tmp_path / "set")) == sorted(source)
    # And once more from the result, which is a source as well.
    again = open_source(tmp_path / "set")
    convert(again, tmp_path / "again", ConversionSettings("fixture", shard_size=11, seed=4))
    assert verify(again, tmp_path / "again").images == len(source)
    multisets = [read_manifest(tmp_path / folder).multiset_sha256 for folder in ("set", "again")]
    assert multisets[0] == multisets[1]


def test_bad_images_fail_or_are_listed(damaged, tmp_path):
    with pytest.raises(UserError, match=r"damaged.*(s1/1\.jpg|s2/1\.jpg|s10/2\.png|s10/3\.jpg)"):
        convert(damaged, tmp_path / "fail", FACES)
    assert not (tmp_path / "fail" / "dataset_info.json").exists()
    info = convert(damaged, tmp_path / "skip", replace(FACES, on_error="skip"))
    assert info.num_examples == len(open_source(tmp_path / "skip")) == 19
    skipped = read_manifest(tmp_path / "skip").skipped
    assert [entry["name"] for entry in skipped] == ["s1/1.jpg", "s2/1.jpg", "s10/2.png", ""]
    reasons = ["truncated or corrupt", "not an image", "WEBP, but", r"s10/3.jpg: cannot be read"]
    for entry, reason in zip(skipped, reasons, strict=True):
        assert reason in entry["reason"]
    assert [entry["index"] for entry in skipped] == [0, 7, 13, 14]
    assert verify(damaged, tmp_path / "skip").skipped == 4


def test_nothing_but_bad_images(tmp_path):
    (tmp_path / "f" / "ann").mkdir(parents=True)
    (tmp_path / "f" / "ann" / "1.jpg").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"all 1 images were skipped; the first: .*ann/1\.jpg"):
        convert(
            FolderSource(tmp_path / "f"), tmp_path / "set", ConversionSettings("f", on_error="skip")
        )


def test_checks_see_what_they_say(tmp_path):
    """A JPEG with changed pixels passes the structure; a PNG's checksum and decoders do not."""
    folder = tmp_path / "f" / "ann"
    folder.mkdir(parents=True)
    image = np.random.RandomState(0).randint(0, 256, (64, 64, 3), np.uint8)
    jpeg = bytearray(images.encode_jpeg(image))
    start = jpeg.index(b"\xff\xda") + 20
    del jpeg[start : start + 1500]  # a hole in the pixels: markers and end are there
    (folder / "1.jpg").write_bytes(jpeg)
    assert convert(
        FolderSource(tmp_path / "f"), tmp_path / "a", ConversionSettings("f")
    ).image_shape == (
        64,
        64,
        3,
    )
    png = bytearray(images.encode_png(image))
    png[len(png) // 2] ^= 1
    (folder / "1.jpg").rename(folder / "1.jpg.bak")
    (folder / "1.png").write_bytes(png)
    with pytest.raises(UserError, match=r"ann/1\.png: .*a wrong checksum in the chunk at byte"):
        convert(FolderSource(tmp_path / "f"), tmp_path / "b", ConversionSettings("f"))


def test_the_space_on_disk_is_checked_first(source, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(run.shutil, "disk_usage", lambda _: usage._replace(free=1 << 20))
    with pytest.raises(UserError, match="1 MiB free, about 16 MiB are needed for 23 images"):
        convert(source, tmp_path / "set", FACES)
    assert not list((tmp_path / "set").glob("faces-*"))


def test_one_process_at_a_time(source, tmp_path):
    folder = tmp_path / "set" / FOLDER
    folder.mkdir(parents=True)
    hold = "import fcntl, sys, time; f = open(sys.argv[1], 'w'); fcntl.flock(f, fcntl.LOCK_EX)"
    code = f"{hold}; print('held', flush=True); time.sleep(60)"
    other = subprocess.Popen(
        [sys.executable, "-c", code, folder / "lock-0-of-1"], stdout=subprocess.PIPE
    )
    try:
        other.stdout.readline()
        with pytest.raises(UserError, match="another process is converting into it"):
            convert(source, tmp_path / "set", FACES)
    finally:
        other.kill()
        other.communicate()
    assert convert(source, tmp_path / "set", FACES)


def test_the_command_line(faces, tmp_path, run_cli):
    destination = tmp_path / "set"
    for part in ("0/2", "1/2"):
        done = run_cli("convert", faces, destination, "--shard_size=4", f"--shard={part}")
        assert done.returncode == 0, done.stderr
        assert f"part {part} is done" in done.stdout
    done = run_cli("convert", destination, "--finish")
    assert done.returncode == 0, done.stderr
    assert "23 images of 3 classes in 6 shards" in done.stdout
    assert (destination / "statistics.png").stat().st_size > 10_000
    done = run_cli("convert", faces, destination, "--shard_size=4", "--verify", "--workers=2")
    assert done.returncode == 0, done.stderr
    assert "verified: source and data set hold the same 23 images" in done.stdout
    manifest = json.loads((destination / "manifest.json").read_text())
    assert [shard["images"] for shard in manifest["shards"]] == [4, 4, 4, 4, 4, 3]
    skipping = run_cli("convert", faces, destination, "--shard_size=4", "--on-error=skip")
    assert "already holds a data set of on_error 'fail', not 'skip'" in skipping.stderr
    failed = run_cli("convert", destination, "--finish", "--verify")
    assert failed.returncode == 2
    assert "--finish: expected without --shard and --verify" in failed.stderr
    for wrong in ("2/2", "x", "-1/2", "1"):
        failed = run_cli("convert", faces, tmp_path / "other", f"--shard={wrong}")
        assert failed.returncode == 2
        assert "expected i/n with i from 0 to n-1" in failed.stderr
    assert not (tmp_path / "other").exists()


def test_same_seed_same_bytes(faces, dataset, tmp_path):
    write_dataset(FolderSource(faces), tmp_path / "a", name="faces", seed=1, shard_size=10)
    write_dataset(FolderSource(faces), tmp_path / "b", name="faces", seed=2, shard_size=10)
    for file in sorted(dataset.iterdir()):
        assert (tmp_path / "a" / file.name).read_bytes() == file.read_bytes()
    shard = "faces-train.tfrecord-00000-of-00003"
    assert (tmp_path / "b" / shard).read_bytes() != (dataset / shard).read_bytes()


def test_corrupt_image_leaves_nothing_like_a_data_set(tmp_path):
    folder = tmp_path / "faces" / "ann"
    folder.mkdir(parents=True)
    whole = images.encode_png(np.random.RandomState(0).randint(0, 256, (50, 40, 3), np.uint8))
    for i in range(5):
        (folder / f"{i}.png").write_bytes(whole if i != 3 else whole[:-200])
    with pytest.raises(UserError, match=r"faces: ann/3\.png: the image is truncated"):
        write_dataset(FolderSource(tmp_path / "faces"), tmp_path / "d", name="d", shard_size=2)
    assert not (tmp_path / "d" / "dataset_info.json").exists()
    assert not list((tmp_path / "d").rglob("*.tmp"))
    (folder / "3.png").write_bytes(whole)
    (folder / "4.pgm").write_bytes(b"P5 2 2 255\nabcd")
    with pytest.raises(
        UserError, match=r"ann/4\.pgm: PPM, but TFRecord data sets hold JPEG or PNG"
    ):
        write_dataset(FolderSource(tmp_path / "faces"), tmp_path / "e", name="d", shard_size=2)
    (folder / "4.pgm").unlink()
    write_dataset(FolderSource(tmp_path / "faces"), tmp_path / "d", name="d", shard_size=2)
    assert len(open_source(tmp_path / "d")) == 5


def test_arguments_are_checked_before_work(faces, dataset, tmp_path):
    source = FolderSource(faces)
    with pytest.raises(UserError, match="already holds a data set"):
        write_dataset(source, dataset, name="faces")
    with pytest.raises(UserError, match="name 'my faces'"):
        write_dataset(source, tmp_path / "d", name="my faces")
    with pytest.raises(UserError, match="shard_size 0"):
        write_dataset(source, tmp_path / "d", name="d", shard_size=0)
    assert not (tmp_path / "d").exists()
