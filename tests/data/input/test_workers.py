import itertools
import os
import pickle
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.batches import assert_equal, stream, take
from tests.helpers.paths import ROOT
from tests.helpers.registered import forgotten
from uniface_jax import register_augmentation
from uniface_jax.data.conversion.recordio_writer import write_insightface
from uniface_jax.data.formats import images
from uniface_jax.data.formats.bin_pairs import write_pairs
from uniface_jax.data.input import workers
from uniface_jax.data.sources.base import Source
from uniface_jax.data.sources.folders import FolderSource
from uniface_jax.data.sources.opening import open_source
from uniface_jax.errors import UserError
from uniface_jax.registry import import_parts


def children(pid="self"):
    return [int(c) for f in Path(f"/proc/{pid}/task").glob("*/children") for c in
            f.read_text().split()]  # fmt: skip


def started(path, **options):
    """A pipeline after its first batch, and the processes that it started."""
    before = children()
    batches = stream(path, kind="processes", **options)
    next(batches)
    return batches, sorted(set(children()) - set(before))


@pytest.mark.parametrize("options", [{}, {"workers": 3}, {"augment": None}, {"start_step": 4}])
def test_processes_give_the_batches_of_threads(dataset, options):
    expected = take(dataset, 7, kind="threads", **options)
    assert_equal(take(dataset, 7, kind="processes", **options), expected)


FOG = """
import numpy as np
from uniface_jax import Range, register_augmentation

@register_augmentation("fog", density=Range("> 0", lambda density: density > 0))
def fog(pixels, generator, density: float = 0.5):
    return np.rint(pixels * (1 - density * generator.random())).astype(np.uint8)
"""


def test_an_augmentation_from_outside_in_processes(dataset, tmp_path, monkeypatch):
    (tmp_path / "outside_fog.py").write_text(FOG)
    monkeypatch.syspath_prepend(tmp_path)
    with forgotten():
        import_parts(["outside_fog"])
        augment = {"fog": {"probability": 0.5, "density": 0.8}}
        expected = take(dataset, 5, kind="threads", augment=augment)
        assert_equal(take(dataset, 5, kind="processes", augment=augment), expected)
        plain = take(dataset, 5, kind="processes")
        assert any((a["image"] != b["image"]).any() for a, b in zip(expected, plain, strict=True))
    del sys.modules["outside_fog"]


def test_an_augmentation_that_no_process_can_import(dataset):
    with forgotten():

        @register_augmentation("inner")
        def inner(pixels, generator):
            return pixels

        with pytest.raises(UserError, match=r"no decoding process .*inner.*decoders=threads"):
            take(dataset, 1, kind="processes", augment={"inner": {"probability": 1.0}})
        take(dataset, 1, kind="threads", augment={"inner": {"probability": 1.0}})


def named(kind, faces, dataset, folder):
    """Return what a command line names to train on these faces, in the format `kind`."""
    source = FolderSource(faces)
    items = [source[i] for i in range(len(source))]
    if kind == "recordio":
        write_insightface(folder, items, len(items))
    elif kind == "list":
        text = "".join(f"{faces / item.name}\tperson {item.label}\n" for item in items)
        (folder / "list.txt").write_text(text)
        return folder / "list.txt"
    elif kind == "bin":
        write_pairs(
            folder / "set.bin", [item.image for item in items], [0, 2], [1, 9], [True, False]
        )
        return folder / "set.bin"
    elif kind == "tar":
        with tarfile.open(folder / "0.tar", "w") as tar:
            tar.add(faces, ".")
    return {"folders": faces, "tfrecord": dataset, "synthetic": "synthetic:40:90"}.get(kind, folder)


@pytest.mark.parametrize(
    "kind", ["recordio", "folders", "list", "bin", "tar", "tfrecord", "synthetic"]
)
def test_every_source_in_processes(kind, faces, dataset, tmp_path):
    name = named(kind, faces, dataset, tmp_path)
    source = open_source(name)
    assert isinstance(source, Source)
    again = pickle.loads(pickle.dumps(source))
    assert [again[i] for i in range(len(source))] == [source[i] for i in range(len(source))]
    in_processes = take(name, 3, kind="processes", workers=1)
    assert_equal(in_processes, take(name, 3, kind="threads"))


def test_a_batch_stays_as_it_was(dataset):
    held = take(dataset, 20, kind="processes")
    copies = [{key: value.copy() for key, value in batch.items()} for batch in held]
    list(itertools.islice(batches := stream(dataset, kind="processes"), 30))
    batches.close()
    assert_equal(held, copies)
    assert_equal(held, take(dataset, 20, kind="threads"))


def test_errors_come_over(tmp_path):
    wide = images.encode_png(np.zeros((112, 120, 3), np.uint8))
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.png").write_bytes(wide)
    with pytest.raises(UserError, match=r"record 0 \(a/1.png\): 120x112 pixels, expected 112"):
        take(tmp_path, 1, batch_size=1, kind="processes")


def test_closing_ends_the_processes(dataset):
    batches, processes = started(dataset, workers=2)
    assert len(processes) == 2
    batches.close()
    assert not any(Path(f"/proc/{process}").exists() for process in processes)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_process_that_dies_or_is_stopped_is_replaced(number, dataset, monkeypatch):
    monkeypatch.setattr(workers, "_PATIENCE", 0.2)
    before = children()
    batches = stream(dataset, kind="processes", workers=2)
    found = [next(batches)]
    processes = set(children()) - set(before)
    for process in processes:
        os.kill(process, number)
        found += itertools.islice(batches, 5)
    assert_equal(found, take(dataset, 11, kind="threads"))
    assert not any(running(process) for process in processes)
    batches.close()
    assert set(children()) == set(before)


def test_processes_that_die_again_and_again_are_lost(dataset, monkeypatch):
    monkeypatch.setattr(workers, "_PROGRAM", "import os; os._exit(9)")
    with pytest.raises(workers.WorkerLostError, match="died 3 times, the last time with code 9"):
        take(dataset, 1, kind="processes", workers=1)


@pytest.mark.parametrize("kind", ["threads", "processes"])
def test_an_image_that_cannot_be_used_is_replaced_by_the_next(kind, faces, tmp_path):
    folder = tmp_path / "faces"
    shutil.copytree(faces, folder)
    good = FolderSource(folder)
    for record in (3, 4, 22):  # the one after the last is the first
        (folder / good.item_name(record)).write_bytes(b"no image")
    batches = take(folder, 6, kind=kind, skip=True)
    plain = take(faces, 6, kind=kind)
    stand_in = {3: 5, 4: 5, 22: 0}
    for batch, expected in zip(batches, plain, strict=True):
        planned = expected["index"].tolist()
        assert batch["index"].tolist() == [stand_in.get(record, record) for record in planned]
        assert batch["skipped"].tolist() == [record for record in planned if record in stand_in]
        untouched = ~np.isin(planned, list(stand_in))
        np.testing.assert_array_equal(batch["image"][untouched], expected["image"][untouched])
        labels = [good[record].label for record in batch["index"].tolist()]
        assert batch["label"].tolist() == labels
    with pytest.raises(UserError, match=r"not an image"):
        take(folder, 6, kind=kind)


def test_where_none_can_be_used_it_ends(tmp_path):
    (tmp_path / "a").mkdir()
    for number in range(3):
        (tmp_path / "a" / f"{number}.png").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"a/\d.png.*; from there on 3 in a row cannot be used"):
        take(tmp_path, 1, batch_size=2, kind="threads", skip=True)


def test_polite_signals_do_not_reach_the_processes(dataset):
    batches, processes = started(dataset, workers=1)
    assert os.getsid(processes[0]) != os.getsid(0)  # where Ctrl-C goes
    os.kill(processes[0], signal.SIGTERM)
    assert len(list(itertools.islice(batches, 10))) == 10
    batches.close()


PARENT = """
import sys, time
from uniface_jax.data.input.batches import DecoderPool, train_batches
from uniface_jax.data.input.sampler import Sampler
batches = train_batches(sys.argv[1], Sampler(8, 5), decoders=DecoderPool("processes", 2))
next(batches)
print("ready", flush=True)
time.sleep(100)
"""


@pytest.mark.parametrize("stopped", [False, True])
def test_processes_end_with_a_killed_parent(stopped, dataset):
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(dataset)], stdout=subprocess.PIPE, cwd=ROOT
    )
    assert parent.stdout.readline() == b"ready\n"
    processes = children(parent.pid)
    assert len(processes) == 2
    if stopped:
        os.kill(processes[0], signal.SIGSTOP)
    parent.kill()
    parent.communicate()
    deadline = time.monotonic() + 20
    while any(running(process) for process in processes):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_an_end_without_close_is_an_end(dataset):
    script = PARENT.replace("time.sleep(100)", "")
    subprocess.run([sys.executable, "-c", script, str(dataset)], cwd=ROOT, check=True, timeout=60)


def test_large_converted_sets_are_read_in_processes(dataset, faces, monkeypatch):
    monkeypatch.setattr("uniface_jax.data.input.batches._LARGE_RECORDS", 23)
    for source, count in ((dataset, 2), (FolderSource(faces), 0)):
        before = set(children())
        batches = stream(source, kind="auto", workers=2)
        next(batches)
        assert len(set(children()) - before) == count
        batches.close()


def running(process):
    try:
        stat = Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"  # dead, and nobody has asked yet
