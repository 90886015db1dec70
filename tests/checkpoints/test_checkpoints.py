"""Checkpoints come back bitwise on any devices; half-written and damaged ones are never used."""

import gc
import shutil

import jax
import numpy as np
import pytest

from tests.helpers.few_arrays import few_arrays
from tests.helpers.tiny_training import first_state, tiny_network
from uniface_jax.checkpoints import reading, saving, scores
from uniface_jax.errors import UserError
from uniface_jax.runtime import parallel
from uniface_jax.state import TrainState, class_sharded

CLASSES = 7  # divides by no number of devices


def make_state(number: int, loss="uce") -> TrainState:
    state = first_state(tiny_network(), loss, CLASSES, seed=number)
    return state._replace(step=np.int32(number))


def abstract_of(state):
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(np.shape(x), np.asarray(x).dtype), state)


def restore(checkpoints, like, mode="shard_map", devices=1):
    """(logical state, run) of the newest checkpoint that can be read."""
    runner = parallel.create_runner(mode, class_sharded(like), jax.devices()[:devices])
    abstract = abstract_of(like)
    state, run = checkpoints.restore_newest(runner.template(abstract), abstract)
    return runner.logical(runner.from_global(state)), run


@pytest.fixture(scope="module")
def states():
    return {number: make_state(number) for number in (3, 6, 9, 12, 15)}


RUN = {"config": "{}", "data": {"samples": 1, "num_classes": CLASSES}}


def test_round_trip_is_bitwise(tmp_path, states):
    checkpoints = saving.Checkpoints(tmp_path)
    checkpoints.save(states[3], RUN)
    checkpoints.wait()
    assert checkpoints.latest() == 3
    state, run = restore(checkpoints, make_state(0))
    jax.tree.map(np.testing.assert_array_equal, state, states[3])
    assert isinstance(state, TrainState)
    assert run == RUN
    checkpoints.close()
    state, run = reading.read(tmp_path)
    jax.tree.map(np.testing.assert_array_equal, state, states[3])
    assert run == RUN


def test_keeps_the_last_and_the_best(tmp_path, states):
    checkpoints = saving.Checkpoints(tmp_path, keep=2)
    for number, auc in ((3, 0.9), (6, 0.95), (9, 0.8), (12, None)):
        checkpoints.save(states[number], RUN)
        if auc:
            checkpoints.score(number, {"auc": auc})
    checkpoints.close()
    kept = sorted(int(path.name) for path in (tmp_path / "checkpoints").iterdir())
    assert kept == [6, 9, 12]
    assert reading.locate(tmp_path) == (tmp_path, 12)
    assert reading.locate(tmp_path / "checkpoints" / "6") == (tmp_path, 6)
    assert int(reading.read(tmp_path / "checkpoints" / "6")[0].step) == 6


def test_the_best_is_kept_after_a_restart_too(tmp_path, states):
    for number, auc in ((3, 0.9), (6, 0.95), (9, 0.8), (12, 0.95)):
        checkpoints = saving.Checkpoints(tmp_path, keep=1)
        checkpoints.save(states[number], RUN)
        checkpoints.score(number, {"auc": auc})
        checkpoints.close()
        if number == 9:
            assert scores.read(tmp_path) == {6: 0.95, 9: 0.8}
            kept = sorted(int(path.name) for path in (tmp_path / "checkpoints").iterdir())
            assert kept == [6, 9]
    kept = sorted(int(path.name) for path in (tmp_path / "checkpoints").iterdir())
    assert kept == [6, 12]  # its score came after it was saved
    checkpoints = saving.Checkpoints(tmp_path, keep=1)
    checkpoints.save(states[15], RUN)
    checkpoints.close()
    kept = sorted(int(path.name) for path in (tmp_path / "checkpoints").iterdir())
    assert kept == [12, 15]  # as good as 6, and newer


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"{", b'{"a": 1}', b'{"3": null}', b'{"3": NaN}', b"\xff", b"[[" * 9999]
)
def test_damaged_scores_are_none(content, tmp_path):
    (tmp_path / scores.SCORES_FILE).write_bytes(content)
    assert scores.read(tmp_path) == {}


def test_scores_from_before_they_had_a_file_count(tmp_path, states):
    for number, auc in ((3, 0.9), (6, 0.8), (9, 0.7)):
        checkpoints = saving.Checkpoints(tmp_path, keep=1)
        checkpoints.save(states[number], {**RUN, "metrics": {"auc": auc}})
        checkpoints.close()
    kept = sorted(int(path.name) for path in (tmp_path / "checkpoints").iterdir())
    assert kept == [3, 9]


def test_half_written_checkpoint_is_not_seen(tmp_path, states):
    checkpoints = saving.Checkpoints(tmp_path)
    checkpoints.save(states[3], RUN)
    checkpoints.close()
    (tmp_path / "checkpoints" / "6.orbax-checkpoint-tmp").mkdir()
    assert reading.locate(tmp_path) == (tmp_path, 3)
    assert saving.Checkpoints(tmp_path).latest() == 3


def test_saving_a_step_again_leaves_it(tmp_path, states):
    checkpoints = saving.Checkpoints(tmp_path)
    checkpoints.save(states[3], RUN)
    checkpoints.save(states[6]._replace(step=np.int32(3)), RUN)
    checkpoints.close()
    state, _ = reading.read(tmp_path)
    jax.tree.map(np.testing.assert_array_equal, state, states[3])


def test_other_shapes_are_refused(tmp_path, states):
    checkpoints = saving.Checkpoints(tmp_path)
    checkpoints.save(states[3], RUN)
    checkpoints.wait()
    with pytest.raises(UserError, match=r"checkpoints/3: .*bias"):
        restore(checkpoints, make_state(0, "bce"))
    checkpoints.close()
    assert reading.locate(tmp_path) == (tmp_path, 3)  # it is whole: not set aside


def test_nothing_there(tmp_path):
    with pytest.raises(UserError, match="has no finished checkpoint; give a workdir"):
        reading.locate(tmp_path)
    (tmp_path / "checkpoints" / "5").mkdir(parents=True)
    with pytest.raises(UserError):
        reading.read(tmp_path)


@pytest.mark.parametrize("saved_by", [("pmap", 8), ("shard_map", 3), ("shard_map", 1)])
@pytest.mark.parametrize("loss", ["uce", "bce"])
def test_saved_on_some_devices_and_restored_on_others(saved_by, loss, tmp_path):
    mode, devices = saved_by
    state = make_state(3, loss)
    runner = parallel.create_runner(mode, class_sharded(state), jax.devices()[:devices])
    checkpoints = saving.Checkpoints(tmp_path)
    checkpoints.save(runner.to_global(runner.place(state)), RUN)
    assert checkpoints.wait()
    for other, count in (("pmap", 8), ("pmap", 4), ("shard_map", 5), ("shard_map", 1)):
        restored, _ = restore(checkpoints, state, other, count)
        jax.tree.map(np.testing.assert_array_equal, restored, state)
    checkpoints.close()
    jax.tree.map(np.testing.assert_array_equal, reading.read(tmp_path)[0], state)


def test_what_fills_up_is_never_read(tmp_path):
    """Rows beyond the classes are cut off even where they hold something."""
    state = make_state(3)
    filled = state.weights.prototypes
    garbage = np.concatenate([filled, np.full((1, 8), np.nan, np.float32)])
    weights = state.weights._replace(prototypes=garbage)
    checkpoints = saving.Checkpoints(tmp_path)
    checkpoints.save(state._replace(weights=weights), RUN)
    checkpoints.wait()
    np.testing.assert_array_equal(reading.read(tmp_path)[0].weights.prototypes, filled)
    np.testing.assert_array_equal(restore(checkpoints, state)[0].weights.prototypes, filled)
    checkpoints.close()


def two_saved(tmp_path, states, warn=lambda text: None):
    checkpoints = saving.Checkpoints(tmp_path, keep=2, warn=warn)
    for number in (3, 6):
        checkpoints.save(states[number], RUN)
    assert checkpoints.wait()
    return checkpoints


def files_of(folder):
    return sorted(path.relative_to(folder) for path in folder.rglob("*") if path.stat().st_size)


@pytest.mark.parametrize("damage", ["cut", "zeros", "gone"])
def test_a_damaged_file_never_goes_unnoticed(damage, tmp_path):
    """Each file of a checkpoint in turn: either it is not needed, or the one before is used."""
    states = {number: few_arrays(number, CLASSES) for number in (3, 6)}
    two_saved(tmp_path, states).close()
    whole = tmp_path / "whole"
    shutil.copytree(tmp_path / "checkpoints", whole)
    noticed = []
    for name in [name for name in files_of(whole / "6") if (whole / "6" / name).is_file()]:
        shutil.rmtree(tmp_path / "checkpoints")
        shutil.rmtree(tmp_path / "corrupt_checkpoints", ignore_errors=True)
        shutil.copytree(whole, tmp_path / "checkpoints")
        file = tmp_path / "checkpoints" / "6" / name
        content = file.read_bytes()
        if damage == "gone":
            file.unlink()
        else:
            file.write_bytes(content[: len(content) // 2] + b"\0" * (damage == "zeros") * 10)
        warnings = []
        checkpoints = saving.Checkpoints(tmp_path, keep=2, warn=warnings.append)
        state, _ = restore(checkpoints, states[6])
        found = int(state.step)
        jax.tree.map(np.testing.assert_array_equal, state, states[found])
        assert bool(warnings) == (found == 3)
        if found == 3:
            noticed.append(name.name)
            assert "checkpoints/6: not a readable checkpoint" in warnings[0]
            assert (tmp_path / "corrupt_checkpoints" / "6").is_dir()
            assert checkpoints.latest() == 3
            checkpoints.save(states[6], RUN)  # the run comes there again
            assert checkpoints.wait()
            assert checkpoints.latest() == 6
        checkpoints.close()
    gc.collect()  # the reads beside those that failed are thrown away without a word
    assert "_METADATA" in noticed
    assert len(noticed) > 3


def test_where_all_are_damaged_nothing_is_moved(tmp_path, states):
    two_saved(tmp_path, states).close()
    for number in (3, 6):
        (tmp_path / "checkpoints" / str(number) / "state" / "_METADATA").write_text("{")
    checkpoints = saving.Checkpoints(tmp_path)
    with pytest.raises(
        UserError, match=r"none of 2 checkpoints can be read; the newest: .*/6: not"
    ):
        restore(checkpoints, states[3])
    assert reading.locate(tmp_path) == (tmp_path, 6)
    with pytest.raises(UserError, match="checkpoints/6: not a readable checkpoint"):
        reading.read(tmp_path)
    checkpoints.close()


def test_a_failed_save_is_reported_and_deletes_nothing(tmp_path, states, monkeypatch):
    warnings = []
    checkpoints = two_saved(tmp_path, states, warnings.append)
    disk_full = OSError(28, "No space left on device")

    def fail(*_, **__):
        raise disk_full

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints._manager, "save", fail)
        checkpoints.save(states[9], RUN)
        assert checkpoints.failing
        assert "step 9 was not saved ([Errno 28] No space left on device)" in warnings[0]
        assert "the last checkpoint is 6" in warnings[0]
    assert reading.locate(tmp_path) == (tmp_path, 6)
    checkpoints.save(states[12], RUN)
    assert checkpoints.wait()
    assert not checkpoints.failing
    checkpoints.close()
    kept = sorted(int(path.name) for path in (tmp_path / "checkpoints").iterdir())
    assert kept == [6, 12]
