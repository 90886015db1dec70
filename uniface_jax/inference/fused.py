"""IR-ResNets and MobileFaceNets as chains of fused native convolutions, for features on this CPU.

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
from uniface_jax.native import build, depthwise
from uniface_jax.native.convolution import divides
from uniface_jax.native.fused_convolution import Affine, Around, forward

Tree = Mapping[str, Any]
# Images at a time: with more, maps leave the caches; with fewer, kernels are read too often, of
# which a MobileFaceNet has few.
IMAGES_AT_A_TIME, OF_MOBILEFACENET_AT_A_TIME = 8, 2
_OF_BLOCK = ("layers_0", "layers_1", "layers_2")  # of a MobileFaceNet


def suits(network: models.Network) -> bool:
    """Return True where features() computes this network's, on the CPU of this process."""
    if not isinstance(network, models.IResNet | models.MobileFaceNet):
        return False
    if jnp.dtype(network.dtype) != jnp.float32 or not build.available():
        return False
    if isinstance(network, models.IResNet):
        return divides(network.width)
    # Of the one convolution in groups of more than one channel, where there is one.
    return network.blocks[0] != 1 or depthwise.suits((3, 3, network.scale, 64 * network.scale))


def features(network: models.Network, variables: Tree, images: jax.Array) -> jax.Array:
    """Return the features [B, D] of images [B, H, W, 3] in [-1, 1], as models.features().

    They are equal but for rounding. suits(network) must be true.
    """
    params, statistics = variables["params"], variables["batch_stats"]
    bias: jax.Array | float = 0.0
    most = IMAGES_AT_A_TIME
    if isinstance(network, models.MobileFaceNet):
        most = OF_MOBILEFACENET_AT_A_TIME
        of_images, last_params = partial(_mobile_maps, network), params["features"]
        linear = last_params["layers_2"]["kernel"]
        last = _affine(last_params["layers_3"], statistics["features"]["layers_3"])
    else:
        assert isinstance(network, models.IResNet)
        of_images, linear = partial(_maps, network), params["fc5"]["kernel"]
        last = _affine(params["bn5"], statistics["bn5"])
        bias = params["fc5"]["bias"] * last.scale if network.tail_bias else bias
    maps = in_parts(partial(of_images, params, statistics), most)(images)
    # All at once: the linear layer's kernel is the largest of all.
    y = maps.reshape(len(images), -1) @ linear
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


def _mobile_maps(
    network: models.MobileFaceNet, params: Tree, statistics: Tree, x: jax.Array
) -> jax.Array:
    """Return the last maps [B, 1, 1, C] of images [B, S, S, 3], normalized."""
    x = _conv_norm(params["layers_0"], statistics["layers_0"], x, 2)
    for stage, count in enumerate(network.blocks):
        if stage:
            name = f"layers_{2 * stage}"
            x = _depth_wise(params[name], statistics[name], x, 2)
        name = f"layers_{2 * stage + 1}"
        of, kept = params[name], statistics[name]
        if stage == 0 and count == 1:
            x = _conv_norm(of, kept, x, 1)
            continue
        for index in range(count):
            name = f"layers_{index}"
            x = _depth_wise(of[name], kept[name], x, 1)
    x = _conv_norm(params["conv_sep"], statistics["conv_sep"], x, 1)
    of, kept = params["features"]["layers_0"], statistics["features"]["layers_0"]
    return _conv_norm(of, kept, x, 1, padded=False)


def _depth_wise(params: Tree, statistics: Tree, x: jax.Array, stride: int) -> jax.Array:
    """Return what models.mobilefacenet.DepthWise does; a stride of 1 adds the input."""
    wide, by_channel, narrow = ((params[n], statistics[n]) for n in _OF_BLOCK)
    out = _conv_norm(*by_channel, _conv_norm(*wide, x, 1), stride)
    return _conv_norm(*narrow, out, 1, added=x if stride == 1 else None)


def _conv_norm(
    params: Tree,
    statistics: Tree,
    x: jax.Array,
    stride: int,
    *,
    padded: bool = True,
    added: jax.Array | None = None,
) -> jax.Array:
    """Return what models.mobilefacenet.ConvNorm does, plus what is `added`."""
    norm, slope = _affine(params["layers_1"], statistics["layers_1"]), None
    if "layers_2" in params:
        slope = params["layers_2"]["slope"]
    kernel = params["layers_0"]["kernel"]
    padding = len(kernel) // 2 if padded else 0
    return forward(x, kernel, stride, padding, Around(norm, slope=slope, added=added))
