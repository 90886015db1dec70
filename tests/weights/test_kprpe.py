"""CVLface's names of a ViT with KP-RPE: written, recognized, and read again."""

import jax
import numpy as np
import pytest

from uniface_jax import models
from uniface_jax.errors import UserError
from uniface_jax.weights.names import family_of, in_cvlface, to_state
from uniface_jax.weights.recognise import from_state

SIZES = dict(dim=16, depth=2, heads=4, patch=28, mlp_ratio=2)


@pytest.fixture(scope="module")
def network():
    return models.create("vit_kprpe_small", embedding_size=8, **SIZES)


@pytest.fixture(scope="module")
def state(network):
    params, statistics = jax.jit(lambda: models.initialize(network, jax.random.key(1)))()
    params["keypoint_linear"]["kernel"] = jax.random.normal(jax.random.key(2), (10, 2 * 4 * 49))
    return to_state(network, {"params": params, "batch_stats": statistics})


def test_the_names_and_shapes_are_cvlface_s(network, state):
    """Compare with the modules of VisionTransformerWithKPRPE at mask_ratio 0."""
    shapes = {name: array.shape for name, array in state.items()}
    norm = {"weight": (16,), "bias": (16,)}
    block = {
        "norm1": norm, "norm2": norm, "attn.qkv": {"weight": (48, 16)},
        "attn.proj": {"weight": (16, 16), "bias": (16,)},
        "mlp.fc1": {"weight": (32, 16), "bias": (32,)},
        "mlp.fc2": {"weight": (16, 32), "bias": (16,)},
    }  # fmt: skip
    of_batch = {"weight", "bias", "running_mean", "running_var"}
    expected = {
        "pos_embed": (1, 16, 16),
        "patch_embed.proj.weight": (16, 3, 28, 28),
        "patch_embed.proj.bias": (16,),
        "norm.weight": (16,),
        "norm.bias": (16,),
        "feature.0.weight": (16, 16 * 16),
        "feature.2.weight": (8, 16),
        **{f"feature.1.{field}": (16,) for field in of_batch},
        **{f"feature.3.{field}": (8,) for field in of_batch},
        "keypoint_linear.weight": (2 * 4 * 49, 10),
        "keypoint_linear.bias": (2 * 4 * 49,),
    }
    for index in range(2):
        for module, fields in block.items():
            expected |= {f"blocks.{index}.{module}.{f}": shape for f, shape in fields.items()}
    assert shapes == expected
    assert family_of(network).name == "cvlface"


def test_a_checkpoint_of_cvlface_is_recognized_with_its_heads(network, state):
    found = from_state(in_cvlface(network, state), "a.pt")
    assert found.family == "cvlface"
    assert found.model["name"] == "vit_kprpe_base"
    own = found.model["kprpe"]
    read = models.create("vit_kprpe_base", embedding_size=8, **own)
    variables = {"params": found.params, "batch_stats": found.batch_stats}
    again = to_state(read, variables)
    assert again.keys() == state.keys()
    for name, array in again.items():
        np.testing.assert_array_equal(array, state[name], err_msg=name)
    assert (own["heads"], own["depth"], own["patch"]) == (4, 2, 28)


def test_heads_that_do_not_fit_are_one_line(state):
    cut = dict(state)
    cut["keypoint_linear.weight"] = cut["keypoint_linear.weight"][: 2 * 3 * 49]
    with pytest.raises(UserError, match=r"a.pt: .*16 channels and 3 heads; expected heads that"):
        from_state(cut, "a.pt")
    with pytest.raises(UserError, match="and no other --heads"):
        from_state(state, "a.pt", heads=2)
