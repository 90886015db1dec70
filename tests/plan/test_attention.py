"""Attention's work by a count of its products, and in a plan."""

import jax
import jax.numpy as jnp
import pytest

from uniface_jax import models
from uniface_jax.models.vit import attend
from uniface_jax.plan import work
from uniface_jax.plan.attention import attention_work, describe

SIZES = {"dim": 32, "depth": 3, "heads": 4, "drop_path": 0.0}


def network(**more):
    return models.create("vit_t", **{**SIZES, "mask_ratio": 0.0, **more})


def test_flops_and_bytes_are_those_of_the_products():
    images, tokens = 5, 144

    def loss(query, key, value):
        return attend(query, key, value).sum()

    x = jax.ShapeDtypeStruct((images, tokens, 4, 8), jnp.float32)
    step = jax.make_jaxpr(jax.value_and_grad(loss, (0, 1, 2)))(x, x, x).jaxpr
    found = attention_work(network(), images, 1)
    assert found.flops == SIZES["depth"] * work.count(step, 1).flops
    logits = jax.eval_shape(lambda q, k: jnp.einsum("bqhd,bkhd->bhqk", q, k), x, x)
    assert found.block == logits.size * 4
    assert found.kept == SIZES["depth"] * found.block


@pytest.mark.parametrize(
    ("changes", "tokens", "passes"),
    [
        ({"mask_ratio": 0.05}, 136, 3),
        ({"mask_ratio": 0.05, "mask_as_published": True}, 129, 3),
        ({"patch": 8, "remat": True}, 196, 4),
    ],
)
def test_masked_tokens_and_recomputed_blocks(changes, tokens, passes):
    found = attention_work(network(**changes), 2, 6)
    assert found.flops == passes * 4 * tokens**2 * 32 * 3 * 2 * 6
    assert found.block == 4 * 4 * tokens**2 * 2
    assert found.kept == found.block * (1 if passes == 4 else 3)


def test_a_fused_kernel_and_other_networks():
    fused = attention_work(network(attention="cudnn", dtype=jnp.bfloat16), 2, 1)
    assert fused.block == fused.kept == 0
    assert "holds no logits" in describe(fused, 1e12)
    assert attention_work(models.create("mbf"), 2, 1) is None
