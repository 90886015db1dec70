"""State dicts of the two PyTorch families against this project's networks."""

import functools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers import release_weights
from tests.helpers.examples import examples
from tests.helpers.trained_networks import shapes_of
from uniface_jax import models
from uniface_jax.errors import UserError
from uniface_jax.inference.mirror import mirror_sum
from uniface_jax.weights.names import layout, to_state
from uniface_jax.weights.recognise import LEFT_OUT, from_state

SMALL = {"width": 4, "embedding_size": 6}


def random_variables(network, seed=0):
    rng = np.random.default_rng(seed)
    shapes = shapes_of(network)
    draw = lambda leaf: rng.normal(0, 1, leaf.shape).astype(np.float32)  # noqa: E731
    return dict(zip(("params", "batch_stats"), jax.tree.map(draw, shapes), strict=True))


@functools.cache
def _small_state(name, **overrides):
    network = models.create(name, **{**SMALL, **overrides})
    return to_state(network, random_variables(network))


def small_state(name="iresnet18", **overrides):
    """Return a state dict of its own, whose arrays are those of every other call."""
    return dict(_small_state(name, **overrides))


@pytest.fixture(scope="module")
def imported_golden(golden):
    return from_state(release_weights.torch_state(golden.seed), "golden")


def test_golden_network(imported_golden):
    imported = imported_golden
    assert imported.family == "release"
    assert imported.model == {
        "name": "lresnet50",
        "stage_sizes": (1, 2, 1, 1),
        "width": 64,
        "embedding_size": 512,
        "stem_stride": 1,
    }
    assert imported.prototypes.shape == (29, 512)
    assert float(imported.bias) == pytest.approx(np.log(290))


@pytest.mark.slow  # tests/train/test_step_golden.py has the same features by the same import
def test_golden_features(golden, imported_golden, x64, convolutions_as_products):
    expected, imported = golden("backbone"), imported_golden
    network = models.create(**imported.model, dtype=jnp.float64)
    variables = {"params": imported.params, "batch_stats": imported.batch_stats}
    images = release_weights.draw(golden.seed, "images").integers(
        0, 256, (6, 112, 112, 3), dtype=np.uint8
    )
    features = jax.jit(mirror_sum(partial(models.features, network, variables)))(
        (images / 255 - 0.5) / 0.5
    )
    np.testing.assert_allclose(features, expected["eval_features"], rtol=1e-8, atol=1e-8)


# The deepest differ from others of their family by a number of blocks, and take seconds.
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow if name.endswith("200") else ())
        for name in models.NETWORKS
    ],
)
def test_every_network_is_recognised_and_survives_bitwise(name):
    network = models.create(name, **SMALL)
    variables = random_variables(network)
    state = to_state(network, variables)
    imported = from_state(state, "file")
    assert imported.model == {"name": name, "stage_sizes": None, "stem_stride": 1, **SMALL}
    found = {"params": imported.params, "batch_stats": imported.batch_stats}
    assert jax.tree.structure(found) == jax.tree.structure(variables)
    jax.tree.map(np.testing.assert_array_equal, found, variables)


@examples(12)
@given(
    name=st.sampled_from(["lresnet18", "iresnet18"]),
    stages=st.tuples(*[st.integers(1, 3)] * 4),
    width=st.integers(1, 5),
    features=st.integers(1, 7),
    stem=st.sampled_from([1, 2]),
)
def test_any_size_is_recognised(name, stages, width, features, stem):
    settings_ = {"width": width, "embedding_size": features, "stem_stride": stem}
    network = models.create(name, stage_sizes=stages, **settings_)
    variables = random_variables(network)
    imported = from_state(to_state(network, variables), "file")
    assert {key: imported.model[key] for key in settings_} == settings_
    named = models.create(**imported.model)
    assert tuple(named.stage_sizes) == stages
    assert named.tail_bias == network.tail_bias
    jax.tree.map(np.testing.assert_array_equal, imported.params, variables["params"])


def test_names_and_shapes_are_pytorchs():
    names = {name: slot.shape for name, slot in layout(models.create("iresnet50")).items()}
    # Of arcface_torch's backbones/iresnet.py, as of its commit d9cb10e.
    assert names["layer1.0.bn1.weight"] == (64,)
    assert names["layer1.0.bn3.running_var"] == (64,)
    assert names["layer2.0.downsample.0.weight"] == (128, 64, 1, 1)
    assert names["layer2.0.downsample.1.bias"] == (128,)
    assert names["layer3.13.prelu.weight"] == (256,)
    assert names["bn2.running_mean"] == (512,)
    assert names["fc.weight"] == (512, 25088)
    assert names["fc.bias"] == names["features.bias"] == (512,)
    assert names["layer4.2.conv2.weight"] == (512, 512, 3, 3)
    release = {name: slot.shape for name, slot in layout(models.create("lresnet50")).items()}
    golden = release_weights.torch_shapes()
    same = golden.keys() - {"loss.weight", "loss.bias", "bn5.weight"}
    assert {name: release[name] for name in same} == {name: golden[name] for name in same}


def test_the_linear_layer_takes_the_map_channel_by_channel():
    network = models.create("iresnet18", **SMALL, stage_sizes=(1, 1, 1, 1))
    imported = from_state(to_state(network, random_variables(network)), "file")
    kernel = imported.params["fc5"]["kernel"]  # [7 * 7 * 32, 6]
    weight = to_state(network, {"params": imported.params, "batch_stats": imported.batch_stats})
    image = np.random.default_rng(1).normal(size=(7, 7, 32))
    np.testing.assert_allclose(
        image.reshape(-1) @ kernel,
        weight["fc.weight"] @ image.transpose(2, 0, 1).reshape(-1),
        rtol=1e-5,
        atol=1e-4,
    )


def test_the_releases_head_with_its_momentum():
    state = small_state("lresnet18")
    state |= {"loss.weight": np.ones((9, 6)), "loss.bias": np.ones(1)}
    state["loss.weight_mom"] = np.full((9, 6), np.nan)
    imported = from_state(state, "file")
    assert imported.prototypes.shape == (9, 6)
    to = {row["name"]: row["to"] for row in imported.tensors}
    assert to["loss.weight_mom"] == "dropped: momentum; training starts without any"


def test_prefixes_counters_and_every_tensor_in_the_report():
    state = {f"module.{name}": array for name, array in small_state().items()}
    state["module.bn1.num_batches_tracked"] = np.array(7)
    imported = from_state(state, "file")
    assert len(imported.tensors) == len(state)
    to = {row["name"]: row["to"] for row in imported.tensors}
    assert to["fc.weight"] == "params/fc5/kernel"
    assert to["layer2.1.bn3.running_var"] == "batch_stats/layer2_1/bn2/var"
    assert to["bn1.num_batches_tracked"].startswith("dropped")
    assert to["features.weight"].startswith("dropped")


def changed(**replacements):
    state = small_state()
    for name, array in replacements.items():
        if array is None:
            del state[name.replace("__", ".")]
        else:
            state[name.replace("__", ".")] = array
    return state


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (changed(layer2__0__bn3__bias=None), r"layer2\.0\.bn3\.bias is missing; needed for insigh"),
        (changed(fc__bias=None, bn1__bias=None), r"bn1\.bias and 1 more are missing"),
        (changed(extra__weight=np.ones(3)), r"extra\.weight is without a place in insightface's"),
        (
            changed(layer1__0__conv1__weight=np.ones((4, 4, 5, 5))),
            r"layer1\.0\.conv1\.weight has shape \[4, 4, 5, 5\]; in .* it is \[4, 4, 3, 3\]",
        ),
        (changed(fc__weight=np.ones((6, 99))), r"fc\.weight has shape \[6, 99\]; in .*\[6, 1568\]"),
        (changed(features__weight=np.full(6, 1.5)), r"features\.weight is 1\.5 to 1\.5"),
        (changed(bn1__bias=np.array([1, np.nan, 0, 0])), r"bn1\.bias holds values that are not f"),
        (changed(bn1__bias=np.ones(4, np.int8)), r"bn1\.bias is int8"),
        (changed(loss__weight=np.ones((9, 5))), r"loss\.weight has shape \[9, 5\]; .*classes, 6"),
        (changed(loss__bias=np.ones(1)), r"loss\.bias without loss\.weight"),
        (
            changed(loss__weight=np.ones((9, 6)), loss__bias=np.ones(3)),
            r"loss\.bias has shape \[3\]; expected \[1\], \[9\] or \[1, 9\]",
        ),
        (changed(conv1__weight=np.ones((0, 3, 3, 3))), "not a network of this project"),
        (changed(fc__weight=np.ones((0, 1568))), "not a network of this project"),
        ({"conv1.weight": np.ones((64, 3, 7, 7)), "fc.weight": np.ones((1000, 512))}, "not a netw"),
        ({}, r"not a network of this project \(0 tensors"),
    ],
)
def test_refusals_name_the_tensor(state, message):
    with pytest.raises(UserError, match=f"backbone.npz: {message}") as caught:
        from_state(state, "backbone.npz")
    assert "\n" not in str(caught.value)


def placed(imported):
    """Return which tensors were left out."""
    return {row["name"] for row in imported.tensors if row["to"] == LEFT_OUT}


def wrapped(prefix, **others):
    state = {f"{prefix}{name}": array for name, array in small_state().items()}
    return state | {name.replace("__", "."): array for name, array in others.items()}


@pytest.mark.parametrize(
    ("state", "left"),
    [
        (wrapped("model.", head__kernel=np.zeros((6, 30))), {"head.kernel"}),
        (wrapped("model.module.", margin=np.zeros(())), {"margin"}),
        (wrapped("", classifier__weight=np.zeros((30, 6))), {"classifier.weight"}),
        (
            wrapped("net.", net__head__weight=np.zeros((9, 6)), net__head__bias=np.zeros(9)),
            {"net.head.weight", "net.head.bias"},
        ),
        (
            wrapped("backbone.", queue=np.zeros((4, 4), np.int64), other__x=np.full(2, np.nan)),
            {"queue", "other.x"},
        ),
        (wrapped("module.", module__logit_scale=np.ones(1)), {"module.logit_scale"}),
    ],
)
def test_what_lies_beside_a_network_is_left_out(state, left):
    imported, alone = from_state(state, "file"), from_state(small_state(), "file")
    assert placed(imported) == left
    assert len(imported.tensors) == len(state)
    jax.tree.map(np.testing.assert_array_equal, imported.params, alone.params)


@pytest.mark.parametrize("copy", ["model_ema.module.", "ema.", "model.ema.", "teacher."])
def test_an_averaged_copy(copy):
    own, averaged = small_state(), small_state(width=8)
    state = {f"model.{name}": array for name, array in own.items()}
    state |= {f"{copy}{name}": array for name, array in averaged.items()}
    imported = from_state(state, "file")
    assert imported.model["width"] == 4
    assert imported.copies == (copy,)
    assert placed(imported) == {f"{copy}{name}" for name in averaged}
    other = from_state(state, "file", copy)
    assert (other.model["width"], other.copies) == (8, ("model.",))


def test_which_network_is_meant():
    state = {f"{side}.{name}": a for side in ("left", "right") for name, a in small_state().items()}
    with pytest.raises(UserError, match=r"file: 2 networks, at 'left\.', 'right\.'; choose one by"):
        from_state(state, "file")
    assert placed(from_state(state, "file", "left.")) == {n for n in state if n.startswith("right")}
    with pytest.raises(UserError, match=r"prefix=middle\.: no network of that; found 'left\.'"):
        from_state(state, "file", "middle.")


@pytest.mark.parametrize(
    "others",
    [
        {"layer1__0__se__weight": np.ones((6, 30))},
        {"conv1__bias": np.ones(4)},
        {"fc__extra": np.ones((30, 6))},
        {"attention__weight": np.ones((6, 6))},
        {"neck__weight": np.ones((7, 5)), "neck__bias": np.ones(7)},
    ],
)
def test_what_may_belong_to_the_network_is_refused(others):
    with pytest.raises(UserError, match="without a place in insightface's"):
        from_state(wrapped("", **others), "file")
