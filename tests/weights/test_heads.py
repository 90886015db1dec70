"""Heads beside a network, in one file or in those of several GPUs."""

from pathlib import Path

import numpy as np
import pytest

from tests.helpers.trained_networks import SMALL_OTHERS, trained_looking
from uniface_jax import models
from uniface_jax.errors import UserError
from uniface_jax.weights.heads import head_state, joined, shards
from uniface_jax.weights.names import to_state
from uniface_jax.weights.recognise import LEFT_OUT, from_state

FEATURES = SMALL_OTHERS["mbf"]["embedding_size"]
ROWS = np.random.default_rng(0).normal(size=(9, FEATURES)).astype(np.float32)
ARCFACE = "state_dict_softmax_fc"


@pytest.fixture(scope="module")
def state():
    network = models.create("mbf", **SMALL_OTHERS["mbf"])
    return to_state(network, trained_looking(network))


@pytest.mark.parametrize(
    ("beside", "bias"),
    [
        (head_state("insightface", ROWS, None), None),
        (head_state("insightface", ROWS, np.float32(4.2)), 4.2),
        ({"partial_fc.weight": ROWS, "other.weight": np.ones((4, FEATURES))}, None),
        ({"head.kernel": ROWS.T}, None),
        ({"fc.weight": ROWS, "state_optimizer.0.momentum": ROWS}, None),
        ({"fc.weight": ROWS, "fc.bias": np.ones(9)}, np.ones(9)),
    ],
)
def test_a_head_is_taken_where_it_is_wanted(state, beside, bias):
    imported = from_state({**state, **beside}, "file", with_head=True)
    np.testing.assert_array_equal(imported.prototypes, ROWS)
    if bias is None:
        assert imported.bias is None
    else:
        np.testing.assert_allclose(imported.bias, bias, rtol=1e-6)
    assert len(imported.tensors) == len(state) + len(beside)
    without = from_state({**state, **beside}, "file")
    assert without.prototypes is None
    left = {row["name"] for row in without.tensors if row["to"] == LEFT_OUT}
    assert left == beside.keys()


@pytest.mark.parametrize(
    ("beside", "message"),
    [
        ({}, "found none"),
        ({"a.weight": ROWS, "b.weight": ROWS}, r"expected one head of \[classes, 16\].*found a, b"),
        ({"a.weight": np.full_like(ROWS, np.nan)}, r"a\.weight holds values that are not finite"),
        ({"ema.weight": ROWS[:0]}, "found none"),
    ],
)
def test_no_head_or_several(state, beside, message):
    with pytest.raises(UserError, match=f"file: .*{message}"):
        from_state({**state, **beside}, "file", with_head=True)


def test_a_square_head_by_a_known_name(state):
    square = head_state("insightface", ROWS[:1].repeat(FEATURES, 0), None)
    assert from_state({**state, **square}, "file").prototypes is None
    imported = from_state({**state, **square}, "file", with_head=True)
    assert imported.prototypes.shape == (FEATURES, FEATURES)


def test_the_checkpoints_of_all_gpus(tmp_path):
    for rank in (0, 1, 2, 4):
        (tmp_path / f"checkpoint_gpu_{rank}.pt").touch()
    first = tmp_path / "checkpoint_gpu_0.pt"
    assert [path.name[15] for path in shards(first)] == ["0", "1", "2"]
    assert shards(tmp_path / "model.pt") == [tmp_path / "model.pt"]
    with pytest.raises(UserError, match=r"gpu_1\.pt: --with_head: .*give checkpoint_gpu_0\.pt"):
        shards(tmp_path / "checkpoint_gpu_1.pt")


def test_rows_of_all_gpus_are_in_their_order():
    name = f"{ARCFACE}.weight"
    parts = [(Path(str(rank)), {name: ROWS[3 * rank : 3 * rank + 3]}) for rank in range(3)]
    np.testing.assert_array_equal(joined(parts)[name], ROWS)
    parts[1] = (Path("second"), {name: ROWS[:, :5]})
    with pytest.raises(UserError, match=r"second: .*shape \[9, 5\]; expected rows as in 0"):
        joined(parts)
    parts[1] = (Path("second"), {})
    with pytest.raises(UserError, match=r"second: .*no such tensor"):
        joined(parts)
