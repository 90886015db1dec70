"""Single bits flipped in a checkpoint: each is noticed, or what is restored is bitwise the true.

UNIFACE_FLIP_SEED draws other bits.
"""

import gc
import json
import os
import random
import resource
import shutil
import time
import types

import jax
import numpy as np
import pytest

from tests.helpers.few_arrays import few_arrays
from uniface_jax.checkpoints import digests, reading, saving
from uniface_jax.errors import UserError
from uniface_jax.runtime import parallel
from uniface_jax.state import class_sharded

SEED = int(os.environ.get("UNIFACE_FLIP_SEED", "0"))
CLASSES = 13
RUN = {"config": "{}", "data": {"samples": 1, "num_classes": CLASSES}}
SECONDS, MEGABYTES = 60, 1024  # at most, for one flip; and for all of them


@pytest.fixture(autouse=True)
def leftovers_of_failed_reads():
    """Collected while the filter above holds: TensorStore lets go of them when it has answered."""
    yield
    deadline = time.monotonic() + 5
    while _unfinished_reads() and time.monotonic() < deadline:
        time.sleep(0.01)


def _unfinished_reads():
    gc.collect()
    found = (x for x in gc.get_objects() if isinstance(x, types.CoroutineType))
    return [x for x in found if "orbax" in x.cr_code.co_filename]


STATES = {step: few_arrays(step, CLASSES) for step in (3, 6)}
ABSTRACT = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), STATES[3])


def runner_on(devices):
    return parallel.create_runner("shard_map", class_sharded(ABSTRACT), jax.devices()[:devices])


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A folder of two checkpoints, saved from three devices."""
    workdir = tmp_path_factory.mktemp("whole")
    checkpoints = saving.Checkpoints(workdir, keep=2)
    runner = runner_on(3)
    for state in STATES.values():
        checkpoints.save(runner.to_global(runner.place(state)), {**RUN, "metrics": {"auc": 0.5}})
    assert checkpoints.wait()
    checkpoints.close()
    return workdir / reading.FOLDER


@pytest.fixture(scope="module")
def whole_of_old(whole, tmp_path_factory):
    """The same from before digests."""
    old = tmp_path_factory.mktemp("old") / reading.FOLDER
    shutil.copytree(whole, old)
    for step in STATES:
        forget_digests(old / str(step))
    return old


def forget_digests(folder):
    shutil.rmtree(folder / digests.FOLDER)
    run = json.loads((folder / "run" / "metadata").read_text())
    del run[reading.FORMAT_KEY]
    (folder / "run" / "metadata").write_text(json.dumps(run))


def files_in(folder):
    """All files that hold something, by folder and size: Orbax draws the names of some."""
    files = [file for file in folder.rglob("*") if file.is_file() and file.stat().st_size]
    files.sort(key=lambda file: (file.parent, file.stat().st_size, file.name))
    return [file.relative_to(folder) for file in files]


def flip(file, rng):
    content = bytearray(file.read_bytes())
    bit = rng.randrange(8 * len(content))
    content[bit // 8] ^= 1 << bit % 8
    file.write_bytes(content)
    return bit


def resumed(workdir):
    """(state, warnings) as training takes them up, on two devices."""
    warnings = []
    checkpoints = saving.Checkpoints(workdir, keep=2, warn=warnings.append)
    runner = runner_on(2)
    state, run = checkpoints.restore_newest(runner.template(ABSTRACT), ABSTRACT)
    checkpoints.close()
    assert run == RUN | {"metrics": {"auc": 0.5}}
    return runner.logical(runner.from_global(state)), warnings


def assert_noticed_or_harmless(workdir):
    """Read the newest checkpoint as evaluation, export, fine-tuning and training do."""
    newest = STATES[6]
    try:
        state, _ = reading.read(workdir)
        jax.tree.map(np.testing.assert_array_equal, state, newest)
    except reading.UnreadableError:
        pass
    try:
        _, variables, _ = reading.read_network(workdir)
        expected = {"params": newest.weights.network, "batch_stats": newest.batch_stats}
        jax.tree.map(np.testing.assert_array_equal, variables, expected)
    except reading.UnreadableError:
        pass
    try:
        runner = runner_on(4)
        other = reading.read_into(workdir, runner.to_global(runner.place(STATES[3])), ABSTRACT)
        weights = runner.logical(runner.from_global(other)).weights
        jax.tree.map(np.testing.assert_array_equal, weights, newest.weights)
    except reading.UnreadableError:
        pass
    state, warnings = resumed(workdir)
    found = int(state.step)
    jax.tree.map(np.testing.assert_array_equal, state, STATES[found])
    assert bool(warnings) == (found == 3)
    assert (workdir / reading.CORRUPT_FOLDER / "6").is_dir() == (found == 3)
    return found == 3


def flips(whole, workdir, count, seed):
    """Flip a bit of the newest checkpoint `count` times: [(file, noticed)], every file first."""
    rng, noticed = random.Random(seed), []
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    names = files_in(whole / "6")
    for number in range(count):
        name = names[number % len(names)] if number < len(names) else rng.choice(names)
        shutil.rmtree(workdir, ignore_errors=True)
        shutil.copytree(whole, workdir / reading.FOLDER)
        bit = flip(workdir / reading.FOLDER / "6" / name, rng)
        started = time.monotonic()
        try:
            noticed.append((str(name), assert_noticed_or_harmless(workdir)))
        except Exception as e:
            raise AssertionError(f"UNIFACE_FLIP_SEED={seed}: bit {bit} of {name}") from e
        assert time.monotonic() - started < SECONDS
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MEGABYTES * 1024
    return noticed


def test_flipped_bits_are_noticed_or_harmless(whole, tmp_path):
    noticed = flips(whole, tmp_path / "run", 24, SEED)
    for name, found in noticed:
        if name.startswith(("run/", "state/_METADATA", "state/_sharding", "digests/files")):
            assert found, name
    assert any(name.startswith("state/") and "/d/" in name for name, _ in noticed)


CONTENTS = (  # in the place of a small file; None is its first half
    None, b"", b"\0", b"[]", b"null", b"7", b"{}", b'{"a": {}}', b"[" * 100_000, b"\xff\xfe",
    b'{"tree_metadata": 3, "item_handlers": [], "metrics": 1, "init_timestamp_nsecs": "x"}',
)  # fmt: skip


def assert_falls_back(whole, workdir, names):
    """With each of CONTENTS in each of these files of the newest checkpoint."""
    for name in names:
        for content in CONTENTS:
            shutil.rmtree(workdir, ignore_errors=True)
            shutil.copytree(whole, workdir / reading.FOLDER)
            file = workdir / reading.FOLDER / "6" / name
            half = file.read_bytes()[: file.stat().st_size // 2]
            file.write_bytes(half if content is None else content)
            try:
                assert_noticed_or_harmless(workdir)
            except Exception as e:
                raise AssertionError(f"{content!r:.60} in {name}") from e


def test_any_content_of_the_last_small_file_is_noticed_or_harmless(whole, tmp_path):
    """Orbax reads it as it opens the folder; it has no digest, since it is written last."""
    assert_falls_back(whole, tmp_path / "run", [digests.LATE_FILE])


@pytest.mark.slow
def test_any_content_of_any_small_file_is_noticed_or_harmless(whole, tmp_path):
    names = [name for name in files_in(whole / "6") if name.parent.name != digests.BLOB_FOLDER]
    assert_falls_back(whole, tmp_path / "run", names)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [SEED, SEED + 1])
def test_two_hundred_flipped_bits_are_noticed_or_harmless(seed, whole, tmp_path):
    assert sum(found for _, found in flips(whole, tmp_path / "run", 200, seed)) > 50


def test_before_digests_flips_went_unnoticed_and_no_failure_was_final(whole_of_old, tmp_path):
    """Show what the digests are for; where reading an old one fails, the one before is used."""
    rng, silent = random.Random(SEED), 0
    names = [name for name in files_in(whole_of_old / "6") if name.parts[0] == "state"]
    blob = max(names, key=lambda name: (whole_of_old / "6" / name).stat().st_size)
    for number, name in enumerate([*names, *[blob] * 12]):
        workdir = tmp_path / str(number)
        shutil.copytree(whole_of_old, workdir / reading.FOLDER)
        flip(workdir / reading.FOLDER / "6" / name, rng)
        state, warnings = resumed(workdir)
        found = int(state.step)
        if found == 3:
            assert len(warnings) == 2
        else:
            assert "from before checkpoints had digests" in warnings[0]
            same = jax.tree.map(np.array_equal, state, STATES[6])
            silent += not all(jax.tree.leaves(same))
    assert silent


def test_a_letter_of_the_sharding_falls_back(whole_of_old, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(whole_of_old, workdir / reading.FOLDER)
    file = workdir / reading.FOLDER / "6" / "state" / "_sharding"
    file.write_text(file.read_text().replace("NamedSharding", "NamedShardinf", 1))
    state, _ = resumed(workdir)
    jax.tree.map(np.testing.assert_array_equal, state, STATES[int(state.step)])


def test_an_old_checkpoint_opens_with_one_line(whole_of_old, capsys):
    state, _ = reading.read(whole_of_old.parent)
    jax.tree.map(np.testing.assert_array_equal, state, STATES[6])
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert f"warning: {whole_of_old / '6'}: from before checkpoints had digests" in error
    _, warnings = resumed(whole_of_old.parent)
    assert len(warnings) == 1


@pytest.mark.parametrize("gone", ["", "process_0.json", digests.FILES])
def test_digests_missing_from_a_newer_checkpoint_are_damage(gone, whole, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(whole, workdir / reading.FOLDER)
    lost = workdir / reading.FOLDER / "6" / digests.FOLDER / gone
    shutil.rmtree(lost) if lost.is_dir() else lost.unlink()
    words = "checkpoints/6: not a readable checkpoint.*; the one before is .*/checkpoints/3$"
    with pytest.raises(reading.UnreadableError, match=words):
        reading.read(workdir)
    state, warnings = resumed(workdir)
    assert int(state.step) == 3
    assert len(warnings) == 1


@pytest.mark.parametrize("wrong", [None, 4, 7])
def test_rows_that_other_processes_hold_are_read_for_the_check(wrong, whole, monkeypatch):
    """Saved from three devices, blocks of the prototypes begin at rows 0, 5 and 10."""
    pieces_of = digests._pieces

    def held_here(array, owned):
        if np.ndim(array) != 2:
            return pieces_of(array, owned)
        rows = array[4:8].copy()
        if wrong is not None:
            rows.view(np.uint32)[wrong - 4, 0] ^= 1
        return [digests.Piece(4, rows)]

    monkeypatch.setattr(digests, "_pieces", held_here)
    if wrong is None:
        reading.read(whole.parent)
        return
    first, last = {4: (0, 4), 7: (5, 9)}[wrong]
    words = rf"prototypes, rows {first} to {last}: other bytes"
    with pytest.raises(reading.UnreadableError, match=words):
        reading.read(whole.parent)


@pytest.mark.parametrize("name", ["state/_METADATA", "run/metadata", "state/d/blob"])
def test_a_fifo_is_not_waited_for(name, whole_of_old, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(whole_of_old, workdir / reading.FOLDER)
    file = workdir / reading.FOLDER / "6" / name
    file.unlink(missing_ok=True)
    os.mkfifo(file)
    with pytest.raises(reading.UnreadableError, match="a FIFO, not a regular file"):
        reading.read(workdir)
    state, _ = resumed(workdir)
    assert int(state.step) == 3


def test_a_format_of_the_future_is_refused(whole_of_old, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(whole_of_old, workdir / reading.FOLDER)
    file = workdir / reading.FOLDER / "6" / "run" / "metadata"
    run = json.loads(file.read_text()) | {reading.FORMAT_KEY: reading.FORMAT + 1}
    file.write_text(json.dumps(run))
    with pytest.raises(UserError, match=f"format 3; this version reads up to {reading.FORMAT}"):
        reading.read(workdir)
    with pytest.raises(UserError, match="format 3"):
        resumed(workdir)
