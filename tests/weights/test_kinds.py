"""arcface_torch's and CVLface's ViT and arcface_torch's MobileFaceNet by their tensors."""

import functools

import jax
import numpy as np
import pytest

from tests.helpers.golden_networks import torch_state
from tests.helpers.trained_networks import SMALL_OTHERS, trained_looking
from uniface_jax import models
from uniface_jax.errors import UserError
from uniface_jax.weights.names import in_cvlface, layout, to_state
from uniface_jax.weights.recognise import LEFT_OUT, from_state

SMALL_VIT = {"dim": 32, "depth": 2, "heads": 4, "embedding_size": 16}


@functools.cache
def _state_of(name, **sizes):
    network = models.create(name, **sizes)
    variables = trained_looking(network)
    return to_state(network, variables), variables


def state_of(name, **sizes):
    """Return a state dict of its own, whose arrays are those of every other call, and variables."""
    state, variables = _state_of(name, **sizes)
    return dict(state), variables


def named_only(name):
    """A state dict of a network's names and shapes, all in one page of zeros."""
    shapes = {key: slot.shape for key, slot in layout(models.create(name)).items()}
    return {key: np.broadcast_to(np.float32(0), shape) for key, shape in shapes.items()}


@pytest.mark.parametrize("name", SMALL_OTHERS)
@pytest.mark.parametrize(
    "prefix",
    [
        "",
        *(pytest.param(p, marks=pytest.mark.slow) for p in ("module.", "model.net.")),
        "_orig_mod.module.",
    ],
)
def test_other_families_come_back_bitwise(name, prefix):
    state, variables = state_of(name, **SMALL_OTHERS[name])
    state = {prefix + key: array for key, array in state.items()}
    state[f"{prefix}features.layers.3.num_batches_tracked"] = np.array(7)
    heads = SMALL_OTHERS[name].get("heads")
    imported = from_state(state, "file", heads=heads)
    found = {"params": imported.params, "batch_stats": imported.batch_stats}
    assert jax.tree.structure(found) == jax.tree.structure(variables)
    jax.tree.map(np.testing.assert_array_equal, found, variables)
    sections = {key: imported.model.pop(key, {}) for key in ("vit", "mobilefacenet")}
    network = models.create(**imported.model, **sections["vit"], **sections["mobilefacenet"])
    written = to_state(network, found)
    assert {prefix + key for key in written} <= state.keys()
    for key, array in written.items():
        np.testing.assert_array_equal(array, state[prefix + key])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("vit_t", "vit_t"),
        ("vit_l_dp005_mask_005", "vit_l_dp005_mask_005"),
        ("mbf", "mbf"),
        ("mbf_large", "mbf_large"),
    ],
)
def test_published_sizes_have_their_name(name, expected):
    model = from_state(named_only(name), "file").model
    assert model["name"] == expected
    assert model["embedding_size"] == 512
    assert model.get("vit", {}).get("heads", 8) == 8
    assert "mobilefacenet" not in model


@pytest.mark.parametrize("case", ["vit", "mbf", "mbf_large", "mbf_scale2"])
def test_names_of_the_reference(golden2, case):
    """Every parameter and buffer of the reference has a place, under the reference's names."""
    golden = golden2("networks")
    sizes = {
        "vit": dict(dim=32, depth=3, heads=4, embedding_size=64),
        "mbf": dict(blocks=(1, 2, 2, 1), scale=1, embedding_size=64),
        "mbf_large": dict(blocks=(2, 2, 2, 1), scale=1, embedding_size=64),
        "mbf_scale2": dict(blocks=(1, 1, 1, 1), scale=2, embedding_size=64),
    }[case]
    network = models.create("vit_t" if case == "vit" else "mbf", **sizes)
    state = torch_state(golden, case, golden2.seed, network)
    imported = from_state(state, "file", heads=4 if case == "vit" else None)
    assert len(imported.tensors) == len(state)
    written = to_state(network, {"params": imported.params, "batch_stats": imported.batch_stats})
    assert written.keys() == state.keys()
    for name, array in state.items():
        np.testing.assert_array_equal(written[name], array)


@pytest.mark.parametrize(
    ("depth", "ratio", "heads", "masked"), [(12, 5, 8, True), (24, 3, 16, False)]
)
def test_cvlfaces_vits(depth, ratio, heads, masked):
    """CVLface's models/vit: small and base, with 196 tokens inside of "net"."""
    mask = {} if masked else {"mask_ratio": 0.0}
    name = "vit_s" if depth == 12 else "vit_b"
    network = models.create(name, patch=8, mlp_ratio=ratio, heads=heads, **mask)
    shapes = {key: slot.shape for key, slot in layout(network).items()}
    zeros = {key: np.broadcast_to(np.float32(0), shape) for key, shape in shapes.items()}
    state = in_cvlface(network, zeros)
    assert ("net.mask_token" in state) == masked
    assert state["net.pos_embed"].shape == (1, 196, 512)
    imported = from_state(state, "file")
    assert imported.model["name"] == name
    assert imported.model["vit"] == {"heads": heads, "patch": 8, "mlp_ratio": ratio, **mask}
    assert imported.params["mask_token"].shape == (1, 1, 512)
    assert len(imported.tensors) == len(state)


def test_cvlfaces_names_are_a_vits_alone():
    with pytest.raises(UserError, match="--cvlface: only for a ViT"):
        in_cvlface(models.create("mbf"), {})


def changed(name, **replacements):
    state, _ = state_of(name, **SMALL_OTHERS[name])
    for key, array in replacements.items():
        key = key.replace("__", ".")
        state.pop(key) if array is None else state.update({key: array})
    return state


@pytest.mark.parametrize(
    ("state", "heads", "message"),
    [
        (changed("vit_t"), None, "2 blocks and 32 channels.* no published one.* give --heads"),
        (changed("vit_t"), 5, "--heads=5: must divide the 32 channels"),
        (changed("mbf"), 8, "--heads=8: only for a ViT; this is insightface's MobileFaceNet"),
        (changed("vit_t", norm__bias=None), 4, r"norm\.bias is missing; needed for insightface's"),
        (changed("vit_t", blocks__1__attn__qkv__bias=np.ones(96)), 4, r"qkv\.bias is without a pl"),
        (changed("vit_t", keypoint_linear__weight=np.ones((9, 10))), 4, "without a place"),
        (changed("vit_t", pos_embed=np.ones((1, 196, 32))), 4, r"pos_embed has shape \[1, 196, 32"),
        (changed("mbf", layers__3__layers__1__layers__2__layers__0__weight=None), None, "missing"),
        (changed("mbf", conv_sep__layers__0__weight=np.ones((512, 9, 1, 1))), None, "has shape"),
        (changed("mbf", layers__0__layers__0__weight=np.ones((60, 3, 3, 3))), None, "not a netw"),
        (changed("mbf", features__layers__2__weight=np.ones(())), None, "not a network"),
        (changed("vit_t", patch_embed__proj__weight=np.ones((32, 3, 0, 0))), 4, "not a network"),
        (changed("vit_t", patch_embed__proj__weight=np.ones(())), 4, "not a network"),
    ],
)
def test_refusals(state, heads, message):
    with pytest.raises(UserError, match=f"file: .*{message}") as caught:
        from_state(state, "file", heads=heads)
    assert "\n" not in str(caught.value)


def test_an_averaged_copy_of_another_kind_stays_behind():
    own, _ = state_of("mbf", **SMALL_OTHERS["mbf"])
    averaged, _ = state_of("vit_t", **SMALL_OTHERS["vit_t"])
    state = {f"model.{name}": array for name, array in own.items()}
    state |= {f"ema.{name}": array for name, array in averaged.items()}
    imported = from_state(state, "file")
    assert imported.model["name"] == "mbf"
    assert imported.copies == ("ema.",)
    left = {row["name"] for row in imported.tensors if row["to"] == LEFT_OUT}
    assert left == {f"ema.{name}" for name in averaged}
    assert from_state(state, "file", "ema.", heads=4).model["name"] == "vit_t"
