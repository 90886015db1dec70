"""Checkpoints come back bitwise, the best one stays, half-written ones are never seen."""

import jax
import numpy as np
import pytest

from uniface_jax import checkpoint, losses, models, step
from uniface_jax.errors import UserError


def make_state(number: int, loss="uce") -> step.TrainState:
    network = models.create("lresnet50", stage_sizes=(1, 1, 1, 1), width=4, embedding_size=8)
    state = step.initialize(network, losses.create(loss), 7, 1.0, seed=number)
    return jax.device_get(state._replace(step=np.int32(number)))


@pytest.fixture(scope="module")
def states():
    return {number: make_state(number) for number in (3, 6, 9, 12)}


RUN = {"config": "{}", "data": {"samples": 1}}


def test_round_trip_is_bitwise(tmp_path, states):
    checkpoints = checkpoint.Checkpoints(tmp_path)
    checkpoints.save(states[3], RUN)
    checkpoints.wait()
    assert checkpoints.latest() == 3
    state, run = checkpoints.restore(3, make_state(0))
    jax.tree.map(np.testing.assert_array_equal, state, states[3])
    assert isinstance(state, step.TrainState)
    assert run == RUN
    checkpoints.close()
    state, run = checkpoint.read(tmp_path)
    jax.tree.map(np.testing.assert_array_equal, state, states[3])
    assert run == RUN


def test_keeps_the_last_and_the_best(tmp_path, states):
    checkpoints = checkpoint.Checkpoints(tmp_path, keep=2)
    for number, auc in ((3, 0.9), (6, 0.95), (9, 0.8), (12, None)):
        checkpoints.save(states[number], RUN, {"auc": auc} if auc else None)
    checkpoints.close()
    kept = sorted(int(path.name) for path in (tmp_path / "checkpoints").iterdir())
    assert kept == [6, 9, 12]
    assert checkpoint.locate(tmp_path) == (tmp_path, 12)
    assert checkpoint.locate(tmp_path / "checkpoints" / "6") == (tmp_path, 6)
    assert int(checkpoint.read(tmp_path / "checkpoints" / "6")[0].step) == 6


def test_half_written_checkpoint_is_not_seen(tmp_path, states):
    checkpoints = checkpoint.Checkpoints(tmp_path)
    checkpoints.save(states[3], RUN)
    checkpoints.close()
    (tmp_path / "checkpoints" / "6.orbax-checkpoint-tmp").mkdir()
    assert checkpoint.locate(tmp_path) == (tmp_path, 3)
    assert checkpoint.Checkpoints(tmp_path).latest() == 3


def test_saving_a_step_again_leaves_it(tmp_path, states):
    checkpoints = checkpoint.Checkpoints(tmp_path)
    checkpoints.save(states[3], RUN)
    checkpoints.save(states[6]._replace(step=np.int32(3)), RUN)
    checkpoints.close()
    state, _ = checkpoint.read(tmp_path)
    jax.tree.map(np.testing.assert_array_equal, state, states[3])


def test_other_shapes_are_refused(tmp_path, states):
    checkpoints = checkpoint.Checkpoints(tmp_path)
    checkpoints.save(states[3], RUN)
    checkpoints.wait()
    with pytest.raises(UserError, match=r"checkpoints/3: .*bias"):
        checkpoints.restore(3, make_state(0, "bce"))
    checkpoints.close()


def test_nothing_there(tmp_path):
    with pytest.raises(UserError, match="has no finished checkpoint; give a workdir"):
        checkpoint.locate(tmp_path)
    (tmp_path / "checkpoints" / "5").mkdir(parents=True)
    with pytest.raises(UserError):
        checkpoint.read(tmp_path)
