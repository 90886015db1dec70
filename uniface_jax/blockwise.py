"""Loss and gradients over one shard of prototypes, one block of classes at a time.

No [B, C] matrix is ever held, only [B, block] tiles. Gradients are written out rather than left to
autodiff: an additive loss then needs one pass (three matrix products a block), a softmax loss one
pass for the log-sum-exp and one for the gradients. Nothing here communicates; head.py does.

With unit directions f_i and w_j = W_j/|W_j|, cos_ij = f_i·w_j and g_ij = dL/dcos_ij:
    dL/df_i = sum_j g_ij w_j        dL/dW_j = (sum_i g_ij f_i - (sum_i g_ij cos_ij) w_j) / |W_j|
"""

from collections.abc import Callable
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp

from uniface_jax.losses import Elementwise, Loss

NORM_FLOOR = 1e-5  # of feature and prototype norms, as the release has it

Carry = TypeVar("Carry")


class Prototypes(NamedTuple):
    """The classes of one shard, or the sampled ones among them.

    weight [K, D]; bias [] for a shared one (or none), [K] for one a class; valid [K] bool, False
    for rows that only fill up the shard.
    """

    weight: jax.Array
    bias: jax.Array
    valid: jax.Array


class Samples(NamedTuple):
    """The whole batch as one shard sees it.

    directions [B, D] of unit length; position [B] int32, the row of the own prototype within this
    shard's K rows, or K where another shard has it.
    """

    directions: jax.Array
    position: jax.Array


class Sums(NamedTuple):
    """What the classes of a shard add up to.

    loss [B], the negatives' part. directions [B, D], weight [K, D] and bias: gradients of
    factor * sum of the loss. max_negative [] and negatives_above [], the largest negative cosine
    and the number of those above the threshold bias/scale.
    """

    loss: jax.Array
    directions: jax.Array
    weight: jax.Array
    bias: jax.Array
    max_negative: jax.Array
    negatives_above: jax.Array


class _Block(NamedTuple):
    start: jax.Array | int
    weight: jax.Array  # [K, D]
    inverse_norm: jax.Array  # [K]
    unfloored: jax.Array  # [K], 1 where the norm is above its floor, so that direction has a slope
    bias: jax.Array  # [1, K] or [1, 1]
    negative: jax.Array  # [B, K] bool: a class, and not the sample's own


def inverse_norm(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """1 / max(|x|, NORM_FLOOR) by rows, and 1.0 where the norm is above the floor, else 0.0."""
    norm = jnp.sqrt(jnp.sum(jnp.square(x), -1))
    return 1 / jnp.maximum(norm, NORM_FLOOR), (norm > NORM_FLOOR).astype(x.dtype)


def _cut(prototypes: Prototypes, samples: Samples, start: jax.Array | int, size: int) -> _Block:
    def rows(x: jax.Array) -> jax.Array:
        return jax.lax.dynamic_slice_in_dim(x, start, size)

    weight = rows(prototypes.weight)
    bias = rows(prototypes.bias)[None] if prototypes.bias.ndim else prototypes.bias[None, None]
    column = start + jnp.arange(size, dtype=samples.position.dtype)
    negative = rows(prototypes.valid)[None] & (column[None] != samples.position[:, None])
    return _Block(start, weight, *inverse_norm(weight), bias, negative)


def _fold(
    body: Callable[[Carry, _Block], Carry],
    carry: Carry,
    prototypes: Prototypes,
    samples: Samples,
    block_size: int,
) -> Carry:
    """Folds body over blocks of rows; what is left over makes a last, smaller block."""
    total = prototypes.weight.shape[0]
    size = min(block_size, total)
    whole, rest = divmod(total, size)

    def step(index: jax.Array, carry: Carry) -> Carry:
        return body(carry, _cut(prototypes, samples, index * size, size))

    carry = jax.lax.fori_loop(0, whole, step, carry)
    return body(carry, _cut(prototypes, samples, whole * size, rest)) if rest else carry


def _cosines(samples: Samples, block: _Block) -> jax.Array:
    """[B, K]; the norms come in as a factor of the columns, so that no normalised copy is made."""
    dtype = samples.directions.dtype
    products = jnp.matmul(
        samples.directions, block.weight.T.astype(dtype), preferred_element_type=block.weight.dtype
    )
    return products * block.inverse_norm[None]


def slopes(function: Elementwise, cos: jax.Array, bias: jax.Array):
    """function(cos, bias) and its derivatives by cos and by bias, all of cos's shape."""
    bias = jnp.broadcast_to(bias, cos.shape)
    one, zero = jnp.ones_like(cos), jnp.zeros_like(cos)
    value, by_cos = jax.jvp(function, (cos, bias), (one, zero))
    _, by_bias = jax.jvp(function, (cos, bias), (zero, one))
    return value, by_cos, by_bias


def _zeros(prototypes: Prototypes, samples: Samples) -> Sums:
    dtype = prototypes.weight.dtype
    return Sums(
        loss=jnp.zeros(samples.directions.shape[0], dtype),
        directions=jnp.zeros(samples.directions.shape, dtype),
        weight=jnp.zeros_like(prototypes.weight),
        bias=jnp.zeros_like(prototypes.bias),
        max_negative=jnp.full((), -jnp.inf, dtype),
        negatives_above=jnp.zeros((), jnp.float32),
    )


def _accumulate(
    sums: Sums, loss: Loss, samples: Samples, block: _Block, factor: float, cos, terms
) -> Sums:
    """Adds one block; `terms` are the loss, its slope by cos and by the bias, [B, K] each."""
    value, by_cos, by_bias = (jnp.where(block.negative, term, 0) for term in terms)
    # factor/|W_j| goes into g once and so reaches both products.
    scaled = by_cos * (block.inverse_norm * factor)[None]
    along = jnp.sum(scaled * cos, 0) * block.inverse_norm * block.unfloored
    low, wide = scaled.astype(samples.directions.dtype), block.weight.dtype
    weight = jnp.matmul(low.T, samples.directions, preferred_element_type=wide)
    weight -= along[:, None] * block.weight
    directions = jnp.matmul(low, block.weight.astype(low.dtype), preferred_element_type=wide)
    if sums.bias.ndim:
        bias = jax.lax.dynamic_update_slice_in_dim(
            sums.bias, factor * jnp.sum(by_bias, 0), block.start, 0
        )
    else:
        bias = sums.bias + factor * jnp.sum(by_bias)
    above = block.negative & (loss.scale * cos > block.bias)
    return Sums(
        loss=sums.loss + jnp.sum(value, 1),
        directions=sums.directions + directions,
        weight=jax.lax.dynamic_update_slice_in_dim(sums.weight, weight, block.start, 0),
        bias=bias,
        max_negative=jnp.maximum(
            sums.max_negative, jnp.max(jnp.where(block.negative, cos, -jnp.inf))
        ),
        negatives_above=sums.negatives_above + jnp.sum(above, dtype=jnp.float32),
    )


def additive_pass(
    loss: Loss, prototypes: Prototypes, samples: Samples, block_size: int, factor: float
) -> Sums:
    """The negatives of an additive loss: loss and all gradients in one pass."""

    def body(sums: Sums, block: _Block) -> Sums:
        cos = _cosines(samples, block)
        terms = slopes(loss.negative, cos, block.bias)
        return _accumulate(sums, loss, samples, block, factor, cos, terms)

    return _fold(body, _zeros(prototypes, samples), prototypes, samples, block_size)


def logsumexp_pass(
    loss: Loss, prototypes: Prototypes, samples: Samples, block_size: int
) -> tuple[jax.Array, jax.Array]:
    """Running maximum and sum of exp(logit - maximum) over the negatives' logits: two [B]."""

    def body(carry: tuple[jax.Array, jax.Array], block: _Block) -> tuple[jax.Array, jax.Array]:
        maximum, total = carry
        cos = _cosines(samples, block)
        logits = loss.negative(cos, jnp.broadcast_to(block.bias, cos.shape))
        logits = jnp.where(block.negative, logits, -jnp.inf)
        higher = jnp.maximum(maximum, jnp.max(logits, 1))
        added = jnp.sum(jnp.exp(logits - higher[:, None]), 1)
        return higher, total * jnp.exp(maximum - higher) + added

    dtype = prototypes.weight.dtype
    batch = samples.directions.shape[0]
    # A finite start, so that a shard without negatives gives 0 and not NaN.
    lowest = jnp.full(batch, jnp.finfo(dtype).min / 2, dtype)
    carry = (lowest, jnp.zeros(batch, dtype))
    return _fold(body, carry, prototypes, samples, block_size)


def softmax_pass(
    loss: Loss,
    prototypes: Prototypes,
    samples: Samples,
    logsumexp: jax.Array,
    block_size: int,
    factor: float,
) -> Sums:
    """The gradients of a softmax loss by its negatives' logits, given the log-sum-exp [B].

    The `loss` of the sums is the negatives' share of the probability.
    """

    def body(sums: Sums, block: _Block) -> Sums:
        cos = _cosines(samples, block)
        logits, by_cos, by_bias = slopes(loss.negative, cos, block.bias)
        probability = jnp.exp(logits - logsumexp[:, None])
        terms = (probability, probability * by_cos, probability * by_bias)
        return _accumulate(sums, loss, samples, block, factor, cos, terms)

    return _fold(body, _zeros(prototypes, samples), prototypes, samples, block_size)
