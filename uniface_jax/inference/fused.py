"""IR-ResNets as chains of fused native convolutions, for features computed on this CPU.

Every batch norm is part of the convolution before or behind it (native/fused_convolution.py), so
that a residual block reads and writes its maps three times and not twelve; and the images are taken
a few at a time, whose maps stay in memory that was touched before.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from uniface_jax import models
from uniface_jax.inference.parts import in_parts
from uniface_jax.models.channels import affine
from uniface_jax.models.layers import BN_EPSILON, padding_of
from uniface_jax.native import build
from uniface_jax.native.convolution import divides
from uniface_jax.native.fused_convolution import Affine, Around, forward

Tree = Mapping[str, Any]
# Images at a time: with more, maps leave the caches; with fewer, kernels are read too often.
IMAGES_AT_A_TIME = 8


def suits(network: models.Network) -> bool:
    """Return True where features() computes this network's, on the CPU of this process."""
    if not isinstance(network, models.IResNet) or jnp.dtype(network.dtype) != jnp.float32:
        return False
    return build.available() and divides(network.width)


def features(network: models.Network, variables: Tree, images: jax.Array) -> jax.Array:
    """Return the features [B, D] of images [B, H, W, 3] in [-1, 1], as models.features().

    They are equal but for rounding. suits(network) must be true.
    """
    assert isinstance(network, models.IResNet)
    params, statistics = variables["params"], variables["batch_stats"]
    maps = in_parts(partial(_maps, network, params, statistics), IMAGES_AT_A_TIME)(images)
    # All at once: the linear layer's kernel is the largest of all.
    rows = maps.reshape(len(images), -1)
    linear = params["fc5"]
    y = rows @ linear["kernel"]
    last = _affine(params["bn5"], statistics["bn5"])
    bias = linear["bias"] * last.scale if network.tail_bias else 0.0
    return affine(y, last.scale, last.shift + bias)


def _affine(params: Tree, statistics: Tree) -> Affine:
    """Return a batch norm by its running statistics; its scale is 1 where it has none."""
    scale = jax.lax.rsqrt(statistics["var"] + BN_EPSILON) * params.get("scale", 1.0)
    return Affine(scale, params["bias"] - statistics["mean"] * scale)


def _maps(network: models.IResNet, params: Tree, statistics: Tree, x: jax.Array) -> jax.Array:
    """Return the last maps [B, H, W, C] of images [B, S, S, 3], normalized."""
    stem = Around(_affine(params["bn1"], statistics["bn1"]), slope=params["prelu"]["slope"])
    x = forward(x, params["conv1"]["kernel"], network.stem_stride, 1, stem)
    for stage, count in enumerate(network.stage_sizes):
        for index in range(count):
            name = f"layer{stage + 1}_{index}"
            x = _block(network, params[name], statistics[name], x, 1 if index else 2)
    last = _affine(params["bn4"], statistics["bn4"])
    return affine(x, last.scale, last.shift)


def _block(
    network: models.IResNet, params: Tree, statistics: Tree, x: jax.Array, stride: int
) -> jax.Array:
    """Return what models.iresnet.IRBlock does."""
    bn0, bn1, bn2 = (_affine(params[name], statistics[name]) for name in ("bn0", "bn1", "bn2"))
    shortcut = x
    if "downsample_0" in params:
        around = Around(_affine(params["downsample_1"], statistics["downsample_1"]))
        kernel = params["downsample_0"]["kernel"]
        shortcut = forward(x, kernel, stride, padding_of(len(kernel)), around)
    first = Around(bn1, before=bn0, slope=params["prelu"]["slope"])
    out = forward(x, params["conv1"]["kernel"], 1, 1, first)
    kernel = params["conv2"]["kernel"]
    return forward(out, kernel, stride, padding_of(len(kernel)), Around(bn2, added=shortcut))
