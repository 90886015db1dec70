"""Digests of arrays and files: what a process restores is checked, wherever it was saved."""

import jax
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from uniface_jax.checkpoints import digests

ROWS = 37
BLOCK = digests.BLOCK_BYTES


@pytest.fixture
def tree():
    rng = np.random.default_rng(0)
    # A block has four rows of the prototypes.
    wide = rng.standard_normal((ROWS, BLOCK // 16)).astype(np.float32)
    return {"step": np.int32(3), "prototypes": wide, "none": np.zeros((0, 4), np.float32)}


def sharded(array, devices):
    """The array split over so many devices, with padding rows of NaN."""
    padded = np.pad(array, [(0, -len(array) % devices), (0, 0)], constant_values=np.nan)
    mesh = Mesh(np.array(jax.devices()[:devices]), ("devices",))
    return jax.device_put(padded, NamedSharding(mesh, PartitionSpec("devices")))


def written(tree, shapes, folder):
    """The digests of a tree as a checkpoint's reader finds them."""
    own = folder / digests.FOLDER
    own.mkdir(parents=True)
    digests.to_write(tree, shapes).write(own)
    digests.write_files(folder, own)
    return digests.read(folder)


def no_more(name, start, stop):
    raise AssertionError(f"{name}, {start} to {stop}: all rows are here")


@pytest.mark.parametrize("devices", [1, 3, 8])
def test_rows_are_checked_on_any_devices(devices, tree, tmp_path):
    arrays = tree | {"prototypes": sharded(tree["prototypes"], devices)}
    saved = written(arrays, tree, tmp_path)
    assert saved["prototypes"].shape == tree["prototypes"].shape
    for others in (1, 2, 5):
        restored = tree | {"prototypes": sharded(tree["prototypes"], others)}
        digests.check(restored, saved, no_more)
    for row in (0, ROWS // 2, ROWS - 1):
        wrong = tree["prototypes"].copy()
        wrong.view(np.uint32)[row, 5] ^= 1 << 30
        with pytest.raises(ValueError, match=r"prototypes, rows \d+ to \d+: other bytes"):
            digests.check({"prototypes": sharded(wrong, 5)}, saved, no_more)


@pytest.mark.parametrize(("start", "stop"), [(0, 10), (9, 22), (21, 23), (36, 37)])
def test_of_a_block_held_in_part_the_other_rows_are_read(start, stop, tree, tmp_path, monkeypatch):
    """Hold them as one of several processes does, on other devices than those of the saving."""
    prototypes, asked = tree["prototypes"], []
    saved = written(tree | {"prototypes": sharded(prototypes, 3)}, tree, tmp_path)

    def more_rows(name, first, end):
        asked.append((first, end))
        return prototypes[first:end]

    def check(held):
        held_rows = [digests.Piece(start, held)]
        monkeypatch.setattr(digests, "_pieces", lambda array, owned: held_rows)
        digests.check({"prototypes": held}, saved, more_rows)

    held = prototypes[start:stop].copy()
    check(held)
    for first, end in asked:
        assert end <= start or first >= stop  # never what is held
        assert end - first < 4
    for row in (0, -1):
        wrong = held.copy()
        wrong.view(np.uint8)[row, 0] ^= 1
        with pytest.raises(ValueError, match="other bytes"):
            check(wrong)


def test_bytes_count_and_not_values(tmp_path):
    tree = {"bias": np.array([0.0, np.nan], np.float32)}
    saved = written(tree, tree, tmp_path)
    digests.check({"bias": tree["bias"].copy()}, saved, no_more)
    with pytest.raises(ValueError, match="bias"):
        digests.check({"bias": np.array([-0.0, np.nan], np.float32)}, saved, no_more)


def test_other_arrays_than_were_saved_are_damage(tree, tmp_path):
    saved = written(tree, tree, tmp_path)
    digests.check_shapes(tree, saved)
    one_more = tree | {"bias": np.zeros(3, np.float32)}
    with pytest.raises(ValueError, match="a digest of bias is missing"):
        digests.check_shapes(one_more, saved)
    one_less = {name: x for name, x in tree.items() if name != "step"}
    with pytest.raises(ValueError, match="step is missing"):
        digests.check_shapes(one_less, saved)
    longer = tree | {"prototypes": np.zeros((ROWS + 1, 4), np.float32)}
    with pytest.raises(ValueError, match=r"prototypes is .* was saved"):
        digests.check_shapes(longer, saved)


def test_a_process_whose_digests_are_missing_is_damage(tree, tmp_path, monkeypatch):
    """Each process writes its own: without one of them some rows have none."""
    own = tmp_path / digests.FOLDER
    own.mkdir()
    halves = (digests.Piece(0, tree["prototypes"][:20]), digests.Piece(20, tree["prototypes"][20:]))
    for process, piece in enumerate(halves):
        monkeypatch.setattr(jax, "process_index", lambda process=process: process)
        entry = (tree["prototypes"].shape, "float32", [piece])
        digests.Unwritten({"prototypes": entry}).write(own)
    digests.write_files(tmp_path, own)
    saved = digests.read(tmp_path)
    digests.check({"prototypes": tree["prototypes"]}, saved, no_more)
    (own / "process_1.json").unlink()
    with pytest.raises(ValueError, match=r"digests/process_1.json is missing"):
        digests.read(tmp_path)
    (own / digests.FILES).unlink()
    digests.write_files(tmp_path, own)  # as if it had never been there
    with pytest.raises(ValueError, match="a digest of prototypes is missing"):
        digests.read(tmp_path)


def test_small_files_are_checked_and_only_those_of_the_checkpoint(tree, tmp_path):
    step = tmp_path / "step"
    (step / "run").mkdir(parents=True)
    (step / "run" / "metadata").write_text('{"data": 1}')
    (step / "state" / "d").mkdir(parents=True)
    (step / "state" / "d" / "blob").write_bytes(b"arrays")
    (step / digests.LATE_FILE).write_text("early")
    written(tree, tree, step)
    (step / digests.LATE_FILE).write_text("late")
    (step / "commit_success.txt").write_text("added by Orbax")
    assert digests.read(step) is not None
    for content in ('{"data": 2}', '{"data": 1} '):
        (step / "run" / "metadata").write_text(content)
        with pytest.raises(ValueError, match="run/metadata has other bytes"):
            digests.read(step)
    (step / "run" / "metadata").unlink()
    with pytest.raises(ValueError, match="run/metadata is missing"):
        digests.read(step)


@pytest.mark.parametrize("name", ["../outside", "/etc/hostname", "run/../../outside"])
def test_no_file_elsewhere_is_read(name, tree, tmp_path):
    step = tmp_path / "step"
    written(tree, tree, step)
    (tmp_path / "outside").write_text("x")
    (step / "run").mkdir()
    listed = f"00000000 1 {name}\n".encode()
    closed = listed + b"%08x\n" % digests.google_crc32c.value(listed)
    (step / digests.FOLDER / digests.FILES).write_bytes(closed)
    with pytest.raises(ValueError, match="lists"):
        digests.read(step)
