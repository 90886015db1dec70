"""Vision transformer for 112x112 faces, as in insightface's arcface_torch (backbones/vit.py).

An image is cut into patches of `patch` x `patch` pixels, whose products are the tokens; pixels
beyond the last whole patch are not used. There is no class token: the features come from all tokens
at once. Module names are those of the PyTorch code.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, Protocol

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from uniface_jax.data.formats.image_size import IMAGE_SIZE
from uniface_jax.errors import UserError
from uniface_jax.models.convolution import convolve
from uniface_jax.models.layers import BatchNorm, at_least_float32
from uniface_jax.models.linear import Linear
from uniface_jax.native import attention as native
from uniface_jax.runtime.tracing import shared_partial

# dim, depth and rates of the networks that arcface_torch names; all have eight heads.
VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "vit_t": dict(dim=256, depth=12, drop_path=0.1, mask_ratio=0.1),
    "vit_t_dp005_mask0": dict(dim=256, depth=12, drop_path=0.05, mask_ratio=0.0),
    "vit_s": dict(dim=512, depth=12, drop_path=0.1, mask_ratio=0.1),
    "vit_s_dp005_mask_0": dict(dim=512, depth=12, drop_path=0.05, mask_ratio=0.0),
    "vit_b": dict(dim=512, depth=24, drop_path=0.1, mask_ratio=0.1),
    "vit_b_dp005_mask_005": dict(dim=512, depth=24, drop_path=0.05, mask_ratio=0.05),
    "vit_l_dp005_mask_005": dict(dim=768, depth=24, drop_path=0.05, mask_ratio=0.05),
    "vit_h": dict(dim=1024, depth=48, drop_path=0.1, mask_ratio=0.0),
}
ATTENTIONS = ("einsum", "cudnn", "pallas")  # implementations, see Attention
FUSED_ON: Mapping[str, str] = {"cudnn": "gpu", "pallas": "tpu"}  # JAX's names of platforms
PUBLISHED_MASK_RATIO = 0.1  # of every variant with a mask: its code passes its own ratio nowhere
_LAYER_NORM_EPSILON, _BATCH_NORM_EPSILON = 1e-5, 2e-5

# PyTorch cuts its normal of deviation .02 off at ±2, a hundred deviations away.
_linear = nn.initializers.normal(0.02)
# PyTorch's default of a convolution's kernel and bias: uniform within 1/sqrt(fan-in).
_patches = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


class Kept(NamedTuple):
    """Tokens of each image that take part in a step, and where all tokens are found again.

    kept: their numbers [B, K]. order [B, N]: where token n is behind the kept ones and the masked.
    """

    kept: jax.Array
    order: jax.Array


def keep_tokens(noise: jax.Array, count: int) -> Kept:
    """Return the `count` tokens of lowest `noise` [B, N] in each image.

    >>> keep_tokens(jnp.array([[0.5, 0.1, 0.9]]), 2).kept.tolist()
    [[1, 0]]
    """
    by_noise = jnp.argsort(noise, axis=1)
    return Kept(by_noise[:, :count], jnp.argsort(by_noise, axis=1))


def _dense(
    features: int, dtype: DTypeLike, name: str, bias: bool = True, product_dtype: str | None = None
) -> Linear:
    return Linear(features, dtype, _linear, bias, product_dtype, name=name)


def _layer_norm(dtype: DTypeLike, name: str) -> nn.LayerNorm:
    # Two passes: the difference of mean squares loses what a large common mean hides.
    return nn.LayerNorm(_LAYER_NORM_EPSILON, dtype=dtype, use_fast_variance=False, name=name)


class LogitBias(Protocol):
    """Arrays, a tree of JAX's, of which a bias of the attention's logits is made where it is used.

    A block that is recomputed in the backward pass keeps these arrays alone.
    """

    def logits(self) -> jax.Array:
        """Return what is added to the logits: [B, heads, N, N]."""


class Attention(nn.Module):
    """Self-attention: x [B, N, D] -> [B, N, D].

    implementation: "einsum" holds the logits [B, heads, N, N], in float32 at least, as the softmax
    needs them; "cudnn" is cuDNN's fused kernel, for CUDA and bfloat16 alone, "pallas" JAX's flash
    attention, for TPUs alone. Neither holds the logits. product_dtype: see Transformer.
    """

    heads: int
    dtype: DTypeLike
    implementation: str
    product_dtype: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array, bias: LogitBias | None = None) -> jax.Array:
        """Map tokens x [B, N, D] to as many of the same size; bias: with "einsum" alone."""
        batch, tokens, dim = x.shape
        qkv = _dense(3 * dim, self.dtype, "qkv", False, self.product_dtype)(x)
        if self.implementation == "cudnn":
            mixed = attend_by_cudnn(*_split(qkv, self.heads))
        elif self.implementation == "pallas":
            mixed = attend_by_pallas(*_split(qkv, self.heads))
        elif bias is not None:
            mixed = attend(*_split(qkv, self.heads), bias.logits())
        elif native.suits(qkv.shape, self.heads, qkv.dtype):
            mixed = _attend_on_cpu(qkv, self.heads)
        else:
            mixed = _attend_plainly(qkv, self.heads)
        proj = _dense(dim, self.dtype, "proj", product_dtype=self.product_dtype)
        return proj(mixed.reshape(batch, tokens, dim))


def _split(qkv: jax.Array, heads: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return query, key and value [B, N, heads, d] of [B, N, 3 heads d]."""
    batch, tokens, width = qkv.shape
    dim = width // 3
    by_head = (batch, tokens, heads, dim // heads)
    # Not by indexing, which becomes a gather where the batch is symbolic, as in exports.
    query, key, value = (
        jax.lax.slice_in_dim(qkv, n * dim, (n + 1) * dim, axis=2).reshape(by_head) for n in range(3)
    )
    return query, key, value


def attend(
    query: jax.Array, key: jax.Array, value: jax.Array, bias: jax.Array | None = None
) -> jax.Array:
    """Return softmax(q k' / sqrt(d) + bias) v of query, key, value [B, N, heads, d].

    bias: [B, heads, N, N], or None for 0. The result has the dtype of value; logits and softmax are
    float32 at least: jax.nn.dot_product_attention takes float32 for float64 too.
    """
    wide = at_least_float32(query.dtype)
    logits = jnp.einsum("bqhd,bkhd->bhqk", query, key, preferred_element_type=wide)
    logits = logits * query.shape[-1] ** -0.5
    if bias is not None:
        logits = logits + bias.astype(wide)
    weights = jax.nn.softmax(logits).astype(value.dtype)
    return jnp.einsum("bhqk,bkhd->bqhd", weights, value)


def _attend_plainly(qkv: jax.Array, heads: int) -> jax.Array:
    return attend(*_split(qkv, heads))


# Trained on a CPU, the native kernels hold the weights of one head at a time; inference, which
# exports take down, is XLA's.
_attend_on_cpu = jax.custom_vjp(_attend_plainly, nondiff_argnums=(1,))


def _attend_forward(qkv: jax.Array, heads: int) -> tuple[jax.Array, jax.Array]:
    ours, plain = (shared_partial(f, heads=heads) for f in (native.forward, _attend_plainly))
    mixed: jax.Array = jax.lax.platform_dependent(qkv, cpu=ours, default=plain)
    return mixed, qkv


def _attend_backward(heads: int, qkv: jax.Array, mixed_bar: jax.Array) -> tuple[jax.Array]:
    ours, plain = (shared_partial(f, heads=heads) for f in (native.gradient, _plain_gradient))
    by_qkv: jax.Array = jax.lax.platform_dependent(qkv, mixed_bar, cpu=ours, default=plain)
    return (by_qkv,)


def _plain_gradient(qkv: jax.Array, mixed_bar: jax.Array, heads: int) -> jax.Array:
    by_qkv: jax.Array = jax.vjp(partial(_attend_plainly, heads=heads), qkv)[1](mixed_bar)[0]
    return by_qkv


_attend_on_cpu.defvjp(_attend_forward, _attend_backward)


def attend_by_cudnn(query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
    """Return what attend does, by cuDNN's fused kernel, which takes even numbers of tokens."""
    batch, tokens = query.shape[:2]
    lengths = None
    if odd := tokens % 2:
        lengths = jnp.full((batch,), tokens, jnp.int32)
        edges = ((0, 0), (0, odd), (0, 0), (0, 0))
        query, key, value = (jnp.pad(x, edges) for x in (query, key, value))
    mixed = jax.nn.dot_product_attention(
        query, key, value, query_seq_lengths=lengths, key_value_seq_lengths=lengths,
        implementation="cudnn",
    )  # fmt: skip
    return mixed[:, :tokens]


def attend_by_pallas(query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
    """Return what attend does, by JAX's kernels for TPUs, which take whole blocks of tokens."""
    from jax.experimental.pallas.ops.tpu import flash_attention as flash  # half a second

    batch, tokens, _, size = query.shape
    edges = ((0, 0), (0, 0), (0, -tokens % flash.MIN_BLOCK_SIZE), (0, 0))
    query, key, value = (jnp.pad(x.transpose(0, 2, 1, 3), edges) for x in (query, key, value))
    # Tokens attend to those of their segment: the padding to itself.
    segment = jnp.broadcast_to(jnp.arange(query.shape[2]) < tokens, (batch, query.shape[2]))
    segment = segment.astype(jnp.int32)
    mixed: jax.Array = flash.flash_attention(
        query, key, value, segment_ids=flash.SegmentIds(segment, segment), sm_scale=size**-0.5
    )
    return mixed[:, :, :tokens].transpose(0, 2, 1, 3)


class Mlp(nn.Module):
    """Two linear layers with ReLU6 between: x [B, N, D] -> [B, N, D]."""

    ratio: int
    dtype: DTypeLike
    product_dtype: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map tokens x [B, N, D] to as many of the same size."""
        dense = partial(_dense, dtype=self.dtype, product_dtype=self.product_dtype)
        hidden = nn.relu6(dense(self.ratio * x.shape[-1], name="fc1")(x))
        return dense(x.shape[-1], name="fc2")(hidden)


class Block(nn.Module):
    """Attention and MLP, each behind a layer norm and added to its input: x [B, N, D] -> same.

    drop_path: rate at which training leaves a branch of an image out; others are scaled up.
    """

    heads: int
    mlp_ratio: int
    drop_path: float
    implementation: str
    dtype: DTypeLike
    product_dtype: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool, bias: LogitBias | None = None) -> jax.Array:
        """Map tokens x [B, N, D]; with train, some images skip a branch; bias: of the attention."""
        # One number an image, which all of its tokens share.
        path = nn.Dropout(self.drop_path, broadcast_dims=(1, 2), deterministic=not train)
        attention = Attention(
            self.heads, self.dtype, self.implementation, self.product_dtype, name="attn"
        )
        x = x + path(attention(_layer_norm(self.dtype, "norm1")(x), bias))
        mlp = Mlp(self.mlp_ratio, self.dtype, self.product_dtype, name="mlp")
        out: jax.Array = x + path(mlp(_layer_norm(self.dtype, "norm2")(x)))
        return out


class PatchEmbed(nn.Module):
    """Products of every patch of the images: [B, S, S, 3] -> tokens [B, N, dim], row by row."""

    dim: int
    patch: int
    dtype: DTypeLike

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        """Map images [B, S, S, 3] to tokens [B, (S // patch)**2, dim]."""
        limit = (3 * self.patch**2) ** -0.5

        def within(key: jax.Array, shape: Any, dtype: Any = jnp.float32) -> jax.Array:
            return jax.random.uniform(key, shape, dtype, -limit, limit)

        def patches(x: jax.Array, kernel: jax.Array, *_: Any, **__: Any) -> jax.Array:
            return convolve(x, kernel, self.patch, 0)

        maps = nn.Conv(
            self.dim, (self.patch, self.patch), self.patch, padding="VALID", dtype=self.dtype,
            kernel_init=_patches, bias_init=within, conv_general_dilated=patches, name="proj",
        )(images)  # fmt: skip
        return maps.reshape(maps.shape[0], -1, self.dim)


class Transformer(nn.Module):
    """Parts of a network of blocks over patches, for the networks that are made of them.

    dim, depth, heads: of the tokens, blocks and attention.
    drop_path: rate of the last block; it rises to it linearly from 0.
    dtype: of the computation; parameters and statistics stay float32.
    remat: recompute each block in the backward pass instead of keeping its activations.
    frozen_statistics: batch norm normalizes by its running statistics in training too.
    product_dtype: of the factors of the blocks' linear layers, float8_e4m3fn or int8; None: dtype.
    """

    dim: int
    depth: int
    heads: int = 8
    patch: int = 9
    mlp_ratio: int = 4
    drop_path: float = 0.0
    embedding_size: int = 512
    dtype: DTypeLike = jnp.float32
    remat: bool = False
    frozen_statistics: bool = False
    product_dtype: str | None = None

    def tokens(self, images: jax.Array) -> jax.Array:
        """Map images [B, S, S, 3] to tokens [B, N, dim] with their position embedding."""
        embed = PatchEmbed(self.dim, self.patch, self.dtype, name="patch_embed")
        x = embed(images.astype(self.dtype))
        positions = self.param("pos_embed", _linear, (1, x.shape[1], self.dim))
        return x + positions.astype(self.dtype)

    def blocks(
        self, x: jax.Array, train: bool, attention: str, biases: Sequence[LogitBias | None]
    ) -> jax.Array:
        """Map tokens [B, N, dim] by all blocks and the last layer norm, to float32 at least.

        attention: one of ATTENTIONS. biases: of the attention of each block.
        """
        block = nn.remat(Block, static_argnums=(2,)) if self.remat else Block
        for index, bias in enumerate(biases):
            rate = self.drop_path * index / max(self.depth - 1, 1)
            x = block(
                self.heads, self.mlp_ratio, rate, attention, self.dtype, self.product_dtype,
                name=f"blocks_{index}",
            )(x, train, bias)  # fmt: skip
        normalized: jax.Array = _layer_norm(at_least_float32(self.dtype), "norm")(x)
        return normalized

    def features(self, x: jax.Array, train: bool) -> jax.Array:
        """Map all tokens of an image, [B, N, dim], to features [B, embedding_size]."""
        wide, by_batch = at_least_float32(self.dtype), train and not self.frozen_statistics
        x = x.reshape(x.shape[0], -1).astype(self.dtype)
        x = _dense(self.dim, self.dtype, "feature_0", bias=False)(x)
        x = BatchNorm(wide, epsilon=_BATCH_NORM_EPSILON, name="feature_1")(x.astype(wide), by_batch)
        x = _dense(self.embedding_size, self.dtype, "feature_2", bias=False)(x)
        last = BatchNorm(wide, epsilon=_BATCH_NORM_EPSILON, name="feature_3")
        found: jax.Array = last(x.astype(wide), by_batch)
        return found


class ViT(Transformer):
    """Images [B, S, S, 3] in [-1, 1] (RGB) -> features [B, embedding_size], float32 at least.

    mask_ratio: share of tokens that training leaves out, drawn anew for each image.
    mask_as_published: leave out PUBLISHED_MASK_RATIO wherever mask_ratio is not 0.
    attention: "einsum", "cudnn" (CUDA, bfloat16) or "pallas" (TPU).
    All others: see Transformer.
    """

    mask_ratio: float = 0.0
    mask_as_published: bool = False
    attention: str = "einsum"

    @nn.compact
    def __call__(self, images: jax.Array, train: bool, noise: jax.Array | None = None) -> jax.Array:
        """Map images [B, S, S, 3] to features [B, embedding_size]; train: as in BatchNorm.

        noise: numbers [B, N] that choose the masked tokens, in place of drawn ones.
        """
        x = self.tokens(images)
        mask_token = self.param("mask_token", _linear, (1, 1, self.dim))
        tokens = x.shape[1]
        keep = self.kept(tokens) if train else tokens
        order = None
        if keep < tokens:
            if noise is None:
                noise = jax.random.uniform(self.make_rng("dropout"), x.shape[:2])
            kept, order = keep_tokens(noise, keep)
            x = jnp.take_along_axis(x, kept[..., None], axis=1)
        x = self.blocks(x, train, self.attention, [None] * self.depth)
        if order is not None:
            masked = jnp.broadcast_to(
                mask_token.astype(x.dtype), (x.shape[0], tokens - keep, self.dim)
            )
            x = jnp.concatenate([x, masked], axis=1)
            x = jnp.take_along_axis(x, order[..., None], axis=1)
        return self.features(x, train)

    def kept(self, tokens: int) -> int:
        """Return how many of an image's tokens take part in a training step."""
        as_published = self.mask_as_published and self.mask_ratio > 0
        return int(tokens * (1 - (PUBLISHED_MASK_RATIO if as_published else self.mask_ratio)))


def create_vit(name: str, **overrides: Any) -> ViT:
    """Return the network `name` of VARIANTS with fields of ViT replaced by `overrides`.

    Raises UserError for heads that do not divide dim, for a mask of all tokens, and for cuDNN's
    attention without bfloat16.
    """
    given = {key: value for key, value in overrides.items() if value is not None}
    network = ViT(**{**VARIANTS[name], **given})
    if network.dim % network.heads:
        raise UserError(f"model.vit.heads={network.heads}: must divide {name}'s {network.dim}")
    tokens = (IMAGE_SIZE // network.patch) ** 2
    if not network.kept(tokens):
        raise UserError(
            f"model.vit.mask_ratio={network.mask_ratio}: leaves none of the {tokens} tokens of "
            f"model.vit.patch={network.patch} in a training step"
        )
    if network.attention == "cudnn" and jnp.dtype(network.dtype) != jnp.bfloat16:
        raise UserError(
            f"model.vit.attention='cudnn': with model.dtype={jnp.dtype(network.dtype).name!r}; "
            "cuDNN's attention needs model.dtype='bfloat16'"
        )
    return network
