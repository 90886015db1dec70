"""Conversion: what is written, resumed, refused, verified; the processes as a user runs them."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from uniface_jax.data.conversion import run, workers
from uniface_jax.data.conversion.finish import finish
from uniface_jax.data.conversion.job import FOLDER, ConversionSettings, default_shard_size
from uniface_jax.data.conversion.manifest import MANIFEST_FILE, read_manifest
from uniface_jax.data.conversion.run import convert
from uniface_jax.data.conversion.statistics import read_statistics
from uniface_jax.data.conversion.verify import verify
from uniface_jax.data.formats import images
from uniface_jax.data.formats.image_index import IMAGE_INDEX_FILE
from uniface_jax.data.formats.tfrecord_info import read_dataset_info
from uniface_jax.data.formats.tfrecord_shards import INDEX_FILE
from uniface_jax.data.sources.folders import FolderSource
from uniface_jax.data.sources.opening import open_source
from uniface_jax.errors import UserError

FACES = ConversionSettings("faces", shard_size=4)


def tree(folder):
    """Every file of a finished data set but the plot, whose bytes are matplotlib's affair."""
    return {
        str(f.relative_to(folder)): f.read_bytes()
        for f in folder.rglob("*")
        if f.is_file() and f.suffix != ".png"
    }


@pytest.fixture(scope="module")
def source(faces):
    return FolderSource(faces)


@pytest.fixture(scope="module")
def undisturbed(source, tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed") / "set"
    convert(source, folder, FACES)
    return folder


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


@pytest.fixture
def damaged(faces, tmp_path):
    """23 images of which one is cut short, one is HTML, one is WebP and one is gone."""
    folder = shutil.copytree(faces, tmp_path / "damaged")
    whole = (folder / "s1" / "1.jpg").read_bytes()
    (folder / "s1" / "1.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "s2" / "1.jpg").write_bytes(b"<html>404</html>")
    webp = np.zeros((8, 8, 3), np.uint8)
    import cv2

    (folder / "s10" / "2.png").write_bytes(cv2.imencode(".webp", webp)[1].tobytes())
    source = FolderSource(folder)
    (folder / "s10" / "3.jpg").unlink()
    return source


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


def test_a_manifest_lists_images_of_its_source(damaged, tmp_path):
    convert(damaged, tmp_path / "skip", ConversionSettings("f", on_error="skip"))
    manifest = json.loads((tmp_path / "skip" / MANIFEST_FILE).read_text())
    manifest["skipped"][0]["index"] = 10**15
    (tmp_path / "skip" / MANIFEST_FILE).write_text(json.dumps(manifest))
    with pytest.raises(UserError, match=r"skipped\[0\]: index 1000000000000000, expected 0\.\."):
        verify(damaged, tmp_path / "skip")
    manifest["seed"] = 10**30
    (tmp_path / "skip" / MANIFEST_FILE).write_text(json.dumps(manifest))
    with pytest.raises(UserError, match=r"manifest\.json: not JSON \(a number of 31 digits\)"):
        verify(damaged, tmp_path / "skip")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ((b"ann", b"a\nb"), r"a class called 'a\\nb': a data set keeps"),
        ((b"ann", b"a\xff"), r"a class called 'a\\udcff': "),
        ((b"ann", b"\xe3\x80\x80"), r"a class called '\\u3000': "),
        ((b"ann", b" ann"), r"a class called 'ann' beside ' ann': "),
    ],
)
def test_names_of_classes_that_no_line_can_hold(names, message, tmp_path):
    for name in names:
        folder = tmp_path / "f" / os.fsdecode(name)
        folder.mkdir(parents=True)
        (folder / "1.png").write_bytes(images.encode_png(np.zeros((8, 8, 3), np.uint8)))
    with pytest.raises(UserError, match=message):
        convert(FolderSource(tmp_path / "f"), tmp_path / "set", ConversionSettings("f"))
    assert not (tmp_path / "set").exists()


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


def test_verify_finds_what_differs(source, undisturbed, tmp_path):
    proof = verify(source, undisturbed, workers=2)
    assert (proof.images, proof.skipped) == (23, 0)
    assert proof == verify(source, undisturbed)

    copy = shutil.copytree(undisturbed, tmp_path / "copy")
    shard = sorted(copy.glob("faces-train*"))[2]
    content = bytearray(shard.read_bytes())
    content[200] ^= 1
    shard.write_bytes(content)
    with pytest.raises(UserError, match=rf"{shard.name}: record 0: its checksum"):
        verify(source, copy)

    indexed = shutil.copytree(undisturbed, tmp_path / "indexed")
    rows = np.load(indexed / IMAGE_INDEX_FILE)
    rows["label"][12] = (rows["label"][12] + 1) % 3
    np.save(indexed / IMAGE_INDEX_FILE, rows)
    with pytest.raises(
        UserError, match=rf"record \d+: {IMAGE_INDEX_FILE} has another image or lab"
    ):
        verify(source, indexed)
    (indexed / IMAGE_INDEX_FILE).unlink()
    bounds = np.load(indexed / INDEX_FILE)
    bounds[2] = 1 << 60
    np.save(indexed / INDEX_FILE, bounds)
    with pytest.raises(UserError, match=rf"00000-of-00006: {INDEX_FILE} has other places"):
        verify(source, indexed)
    (indexed / INDEX_FILE).unlink()
    assert verify(source, indexed) == proof

    other = shutil.copytree(source.path, tmp_path / "other")
    first, second = other / "s1" / "1.jpg", other / "s2" / "1.jpg"
    kept = first.read_bytes()
    first.write_bytes(second.read_bytes())
    with pytest.raises(UserError, match=r"only in the source: s1/1\.jpg; only in the data set: s1"):
        verify(FolderSource(other), undisturbed)
    second.write_bytes(kept)  # the same bytes in all, under each other's label
    with pytest.raises(UserError, match=r"only in the source: s[12]/1\.jpg"):
        verify(FolderSource(other), undisturbed)
    first.unlink()
    with pytest.raises(UserError, match=r"22 images of 3 classes; .* was made of 23 of 3"):
        verify(FolderSource(other), undisturbed)


def test_statistics_and_duplicates(faces, tmp_path):
    copy = shutil.copytree(faces, tmp_path / "faces")
    for target in ("s1/50.jpg", "s1/51.jpg", "s2/50.jpg"):  # one image under two people
        shutil.copy(copy / "s1" / "1.jpg", copy / target)
    shutil.copy(copy / "s2" / "2.png", copy / "s2" / "52.png")
    source = FolderSource(copy)
    convert(source, tmp_path / "set", FACES)
    found = read_statistics(tmp_path / "set")
    assert (found["images"], found["classes"], found["classes_without_images"]) == (27, 3, 0)
    assert found["images_per_class"]["quantiles"] == {
        "0": 7, "5": 7.2, "25": 8, "50": 9, "75": 10, "95": 10.8, "100": 11
    }  # fmt: skip
    assert sum(found["images_per_class"]["histogram"]["counts"]) == 3
    assert sum(found["image_bytes"]["histogram"]["counts"]) == 27
    assert found["sizes"] == [{"height": 112, "width": 112, "images": 27}]
    duplicates = found["duplicates"]
    counts = [duplicates[f"groups_of_{kind}"] for kind in ("one_class", "several_classes")]
    assert (counts, duplicates["surplus_images"]) == ([1, 1], 4)
    written = open_source(tmp_path / "set")
    for group in duplicates["listed"]:
        assert len({written[i].image for i in group["records"]}) == 1
        assert [written[i].label for i in group["records"]] == group["labels"]


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


def test_shard_sizes():
    assert default_shard_size(490_623) == 20_000
    assert -(-42_474_557 // default_shard_size(42_474_557)) <= 512


def _work(task, tick):
    tick(1)
    if task == "die":
        os._exit(7)
    if task == "full":
        raise OSError(errno.ENOSPC, "No space left on device")
    if task == "wrong":
        raise UserError("a wrong task")
    if task == "bug":
        raise KeyError("bug")
    return task * 2


@pytest.mark.parametrize(
    ("task", "error", "message"),
    [
        ("die", UserError, "a worker process died with code 7"),
        ("full", OSError, "No space left"),
        ("wrong", UserError, "a wrong task"),
        ("bug", RuntimeError, "KeyError: 'bug'"),
    ],
)
def test_workers_pass_on_what_happens(task, error, message):
    ticks = []
    with pytest.raises(error, match=message):
        list(workers.run(_work, [1, task, 2, 3], 2, ticks.append))
    assert ticks


def test_workers_do_all_tasks_once():
    ticks = []
    found = list(workers.run(_work, range(20), 3, ticks.append))
    assert Counter(found) == Counter(2 * i for i in range(20))
    assert sum(ticks) == 20


def test_workers_end_with_the_main_process(tmp_path):
    """After SIGKILL of the main process its workers stop at their next report."""
    script = tmp_path / "main.py"
    script.write_text(
        "import os, sys, time\n"
        "from uniface_jax.data.conversion import workers\n"
        "def work(task, tick):\n"
        "    os.write(1, b'%d\\n' % os.getpid())\n"
        "    while True:\n"
        "        time.sleep(0.02)\n"
        "        tick(1)\n"
        "if __name__ == '__main__':\n"
        "    list(workers.run(work, [1, 2], 2, lambda n: None))\n"
    )
    main = subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True)
    try:
        assert {int(main.stdout.readline()) for _ in range(2)} != {main.pid}
    finally:
        main.send_signal(signal.SIGKILL)
    main.communicate(timeout=60)  # ends when nobody holds the other side of the pipe any more


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
