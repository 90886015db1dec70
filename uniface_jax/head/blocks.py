"""Loss and gradients over one shard of prototypes, one block of classes at a time.

No [B, C] matrix is ever held, only [B, block] tiles. Gradients are written out rather than left to
autodiff: an additive loss then needs one pass (three matrix products a block), a softmax loss one
pass for the log-sum-exp and one for the gradients. Nothing here communicates; loss.py does.

With unit directions f_i and w_j = W_j/|W_j|, cos_ij = f_i·w_j and g_ij = dL/dcos_ij:
    dL/df_i = sum_j g_ij w_j      P_j = sum_i g_ij f_i / |W_j|      dL/dW_j = P_j - (P_j·w_j) w_j

So that the loop needs no one-hot mask, a sample's own class stays in the sums, as a negative whose
cosine is FILL; `fill_terms` is what the head takes out again.
"""

from collections.abc import Callable
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp

from uniface_jax.head.block_size import even_block
from uniface_jax.losses import Elementwise, Loss
from uniface_jax.native import build, cross_entropy_head
from uniface_jax.runtime import low_precision
from uniface_jax.runtime.low_precision import Rows

NORM_FLOOR = 1e-5  # of feature and prototype norms, as the release has it
NORM_CEILING = 1.8e19  # of prototypes' norms, whose squares float32 can hold
LARGEST_EXPONENT = 87.0  # of exp in float32
FILL = -1.0  # where every loss is smallest, so that nothing is lost in taking it out again

Carry = TypeVar("Carry")


class Prototypes(NamedTuple):
    """Classes of one shard, or the sampled ones among them.

    weight [K, D], or [K, S, D] with S prototypes a class, of whose cosines the largest counts
    (sub-centers); bias [] for a shared one (or none), [K] for one a class; valid [K] bool, False
    for padding rows.
    """

    weight: jax.Array
    bias: jax.Array
    valid: jax.Array


class Samples(NamedTuple):
    """Whole batch as one shard sees it.

    directions [B, D] of unit length, each to be multiplied by its scale [B] where there is one;
    position [B] int32, the row of the own prototype within this shard's K rows, or K where another
    shard has it; context, the loss's own arrays [B]. logsumexp [B], of all of a sample's logits,
    once it is known.
    """

    directions: jax.Array
    position: jax.Array
    context: tuple[jax.Array, ...] = ()
    logsumexp: jax.Array | None = None
    scale: jax.Array | None = None


class Sums(NamedTuple):
    """Sums over the classes of a shard, own classes at FILL included.

    loss []; directions [B, D], weight and bias as the prototypes': gradients of factor * sum of the
    loss; weight is None for frozen prototypes. max_negative [] and negatives_above [], the largest
    negative cosine (FILL where there is none) and the number of those above the threshold. nearest
    [B], each sample's largest negative cosine, where the loss is relative.
    """

    loss: jax.Array
    directions: jax.Array
    weight: jax.Array | None
    bias: jax.Array
    max_negative: jax.Array
    negatives_above: jax.Array
    nearest: jax.Array | None = None


class Terms(NamedTuple):
    """A function's values and its derivatives with respect to cosine and bias, of one shape."""

    value: jax.Array
    by_cos: jax.Array
    by_bias: jax.Array


class _Block(NamedTuple):
    start: jax.Array | int
    weight: jax.Array  # [K, D], or [K * S, D] with S prototypes a class
    inverse_norm: jax.Array  # [K], or [K * S]
    unfloored: jax.Array  # the same, 1 where the norm is above its floor: direction has a slope
    bias: jax.Array  # [1, K] or [1, 1]
    valid: jax.Array  # [1, K] bool
    cos: jax.Array  # [B, K], FILL for the own class
    chosen: jax.Array | None = None  # [B, K], of S prototypes the nearest; S for the own class


def inverse_norm(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return 1 / max(|x|, NORM_FLOOR) of each row, and 1.0 where the norm is above the floor.

    A norm beyond NORM_CEILING counts as that.
    """
    norm = jnp.minimum(jnp.sqrt(jnp.sum(jnp.square(x), -1)), NORM_CEILING)
    return 1 / jnp.maximum(norm, NORM_FLOOR), (norm > NORM_FLOOR).astype(x.dtype)


def unit(x: jax.Array) -> jax.Array:
    """Return the rows of x [N, D] at unit length, as inverse_norm has their lengths."""
    return x * inverse_norm(x)[0][:, None]


def slopes(function: Elementwise, cos: jax.Array, bias: jax.Array, *context: jax.Array) -> Terms:
    """Return function(cos, bias, *context) and its derivatives, of the cosine's shape."""
    bias = jnp.broadcast_to(bias, cos.shape)
    one, zero = jnp.ones_like(cos), jnp.zeros_like(cos)

    def bound(cos: jax.Array, bias: jax.Array) -> jax.Array:
        return function(cos, bias, *context)

    value, by_cos = jax.jvp(bound, (cos, bias), (one, zero))
    _, by_bias = jax.jvp(bound, (cos, bias), (zero, one))
    return Terms(value, by_cos, by_bias)


def fill_terms(loss: Loss, bias: jax.Array, context: tuple[jax.Array, ...]) -> Terms:
    """Return the terms of each sample's own class as a negative at FILL, [B]."""
    return slopes(loss.negative, jnp.full_like(bias, FILL), bias, *context)


def share(logits: jax.Array, logsumexp: jax.Array) -> jax.Array:
    """Return exp(logits - logsumexp), at most 1: FILL may exceed the rest of the sum."""
    return jnp.exp(jnp.minimum(logits - logsumexp, 0))


def _products(samples: Samples, weight: jax.Array) -> jax.Array:
    """Return the products [B, K] of all directions with the rows of weight [K, D]."""
    low = low_precision.rows(weight, samples.directions.dtype)
    return low_precision.products(Rows(samples.directions, samples.scale), low, weight.dtype)


def _cut(prototypes: Prototypes, samples: Samples, start: jax.Array | int, size: int) -> _Block:
    """Cut out the block of the `size` classes from `start` on."""

    def rows(x: jax.Array) -> jax.Array:
        return jax.lax.dynamic_slice_in_dim(x, start, size)

    weight = rows(prototypes.weight)
    if weight.ndim == 3:
        biases = rows(prototypes.bias) if prototypes.bias.ndim else prototypes.bias
        classes = Prototypes(weight, biases, rows(prototypes.valid))
        return _cut_subcentres(classes, samples, start)
    bias = rows(prototypes.bias)[None] if prototypes.bias.ndim else prototypes.bias[None, None]
    scale, unfloored = inverse_norm(weight)
    products = _products(samples, weight)
    column = samples.position - start
    column = jnp.where((column >= 0) & (column < size), column, size)
    fill = 2 * FILL / scale[jnp.minimum(column, size - 1)]
    products = products.at[jnp.arange(column.shape[0]), column].set(fill, mode="drop")
    # The norms come in as a factor of the columns, so that no normalized copy is made.
    cos = jnp.clip(products * scale[None], -1, 1)
    return _Block(start, weight, scale, unfloored, bias, rows(prototypes.valid)[None], cos)


def _cut_subcentres(prototypes: Prototypes, samples: Samples, start: jax.Array | int) -> _Block:
    """Return the block of these classes, each with several prototypes [K, S, D].

    A sample's own class chooses none of them, so that no gradient flows from its FILL.
    """
    size, count, _ = prototypes.weight.shape
    weight = prototypes.weight.reshape(size * count, -1)
    scale, unfloored = inverse_norm(weight)
    products = _products(samples, weight)
    every = jnp.clip(products * scale[None], -1, 1).reshape(-1, size, count)
    own = (samples.position[:, None] - start) == jnp.arange(size)[None]
    chosen = jnp.where(own, count, jnp.argmax(every, -1))
    cos = jnp.where(own, FILL, jnp.max(every, -1))
    bias = prototypes.bias[None] if prototypes.bias.ndim else prototypes.bias[None, None]
    valid = prototypes.valid[None]
    return _Block(start, weight, scale, unfloored, bias, valid, cos, chosen)


def _fold(
    body: Callable[[Carry, _Block], Carry],
    carry: Carry,
    prototypes: Prototypes,
    samples: Samples,
    block_size: int,
) -> Carry:
    """Fold `body` over full blocks, then over the smaller rest, so that no block needs a mask."""
    total = prototypes.weight.shape[0]
    size = even_block(total, block_size)
    if size == total:
        return body(carry, _cut(prototypes, samples, 0, size))

    def step(state: tuple[jax.Array, Carry]) -> tuple[jax.Array, Carry]:
        start, carry = state
        return start + size, body(carry, _cut(prototypes, samples, start, size))

    # Compared as XLA can count: a loop of unknown length stops a GPU's queue at every turn.
    start, carry = jax.lax.while_loop(
        lambda state: state[0] <= total - size, step, (jnp.int32(0), carry)
    )
    if rest := total % size:
        # From where the loop has stopped: at a known start, the compiler would cut this block out
        # beforehand and hold it all the while.
        carry = body(carry, _cut(prototypes, samples, start, rest))
    return carry


def _terms(loss: Loss, samples: Samples, block: _Block) -> Terms:
    return slopes(loss.negative, block.cos, block.bias, *(x[:, None] for x in samples.context))


def _zeros(loss: Loss, prototypes: Prototypes, samples: Samples, frozen: bool = False) -> Sums:
    dtype = prototypes.weight.dtype
    batch = samples.directions.shape[0]
    return Sums(
        loss=jnp.zeros((), dtype),
        directions=jnp.zeros(samples.directions.shape, dtype),
        weight=None if frozen else jnp.zeros_like(prototypes.weight),
        bias=jnp.zeros_like(prototypes.bias),
        max_negative=jnp.full((), FILL, dtype),
        negatives_above=jnp.zeros((), jnp.float32),
        nearest=jnp.full(batch, FILL, dtype) if loss.relative else None,
    )


def _accumulate(
    sums: Sums, loss: Loss, samples: Samples, block: _Block, factor: float, terms: Terms
) -> Sums:
    """Add one block to the sums; the terms are the loss and its slopes, [B, K] each."""
    low, wide = samples.directions.dtype, block.weight.dtype

    def stored(array: jax.Array, rows: jax.Array) -> jax.Array:
        rows = rows.reshape(-1, *array.shape[1:])
        return jax.lax.dynamic_update_slice_in_dim(array, rows, block.start, 0)

    valid = block.valid.astype(wide)
    # factor/|W_j| goes into g once and so reaches both products.
    if block.chosen is None:
        g = terms.by_cos * (valid * block.inverse_norm[None] * factor)
    else:
        by_cos = _to_chosen(terms.by_cos * valid, block.chosen, block.weight.shape[0])
        g = by_cos * (block.inverse_norm[None] * factor)
    weight = None
    if sums.weight is not None:
        directions = Rows(samples.directions, samples.scale)
        weight = low_precision.sums_of_rows(g, 0, directions, wide)
        along = jnp.sum(weight * block.weight, 1) * jnp.square(block.inverse_norm) * block.unfloored
        weight = stored(sums.weight, weight - along[:, None] * block.weight)
    by_bias = terms.by_bias * valid
    if sums.bias.ndim:
        bias = stored(sums.bias, factor * jnp.sum(by_bias, 0))
    else:
        bias = sums.bias + factor * jnp.sum(by_bias)
    above = block.valid & (block.cos > loss.threshold(block.bias))
    negatives = jnp.where(block.valid, block.cos, FILL)
    nearest = sums.nearest
    if nearest is not None:
        nearest = jnp.maximum(nearest, jnp.max(negatives, 1))
    return Sums(
        loss=sums.loss + jnp.sum(terms.value * valid),
        directions=sums.directions
        + low_precision.sums_of_rows(g, 1, low_precision.rows(block.weight, low), wide),
        weight=weight,
        bias=bias,
        max_negative=jnp.maximum(sums.max_negative, jnp.max(negatives)),
        negatives_above=sums.negatives_above + jnp.sum(above, dtype=jnp.float32),
        nearest=nearest,
    )


def _to_chosen(by_cos: jax.Array, chosen: jax.Array, total: int) -> jax.Array:
    """Return slopes [B, total] by all prototypes of a block, of those [B, K] by the classes'."""
    count = total // by_cos.shape[1]
    spread = jnp.where(chosen[..., None] == jnp.arange(count)[None, None], by_cos[..., None], 0)
    return spread.reshape(-1, total)


def _has_kernel(loss: Loss, prototypes: Prototypes, samples: Samples) -> bool:
    constants = (loss.clipped_cross_entropy, loss.scale)  # traced ones are compiled by XLA
    arrays = (prototypes.weight, prototypes.bias, samples.directions)
    return (
        all(isinstance(x, float | int) for x in constants)
        and not loss.relative
        and loss.scale <= LARGEST_EXPONENT
        and all(x.dtype == jnp.float32 for x in arrays)
        and prototypes.weight.ndim == 2
        and build.available()
        and samples.directions.shape[1] % build.vector_width() == 0
    )


def additive_pass(
    loss: Loss,
    prototypes: Prototypes,
    samples: Samples,
    block_size: int,
    factor: float,
    *,
    frozen: bool = False,
) -> Sums:
    """Return the sums over the negatives of an additive loss: loss and gradients in one pass.

    frozen: leave out the prototypes' gradients, a third of the products, and their memory. UCE and
    BCE in float32 on CPUs run in a kernel with blocks of its own, where there is one, unless they
    are relative.
    """
    if loss.clipped_cross_entropy is not None and _has_kernel(loss, prototypes, samples):
        constants = cross_entropy_head.Constants(
            loss.scale, loss.clipped_cross_entropy, factor, frozen
        )
        return Sums(
            *cross_entropy_head.sums(samples.directions, samples.position, *prototypes, constants)
        )

    def body(sums: Sums, block: _Block) -> Sums:
        return _accumulate(sums, loss, samples, block, factor, _terms(loss, samples, block))

    return _fold(body, _zeros(loss, prototypes, samples, frozen), prototypes, samples, block_size)


def logsumexp_pass(
    loss: Loss, prototypes: Prototypes, samples: Samples, block_size: int
) -> tuple[jax.Array, jax.Array]:
    """Return maximum and sum of exp(logit - maximum) over the negatives' logits, [B] each."""

    def body(carry: tuple[jax.Array, jax.Array], block: _Block) -> tuple[jax.Array, jax.Array]:
        maximum, total = carry
        logits = jnp.where(block.valid, _terms(loss, samples, block).value, -jnp.inf)
        higher = jnp.maximum(maximum, jnp.max(logits, 1))
        added = jnp.sum(jnp.exp(logits - higher[:, None]), 1)
        return higher, total * jnp.exp(maximum - higher) + added

    dtype = prototypes.weight.dtype
    batch = samples.directions.shape[0]
    # A finite start, so that a shard without classes gives 0 and not NaN.
    lowest = jnp.full(batch, jnp.finfo(dtype).min / 2, dtype)
    carry = (lowest, jnp.zeros(batch, dtype))
    return _fold(body, carry, prototypes, samples, block_size)


def softmax_pass(
    loss: Loss,
    prototypes: Prototypes,
    samples: Samples,
    block_size: int,
    factor: float,
    *,
    frozen: bool = False,
) -> Sums:
    """Return the gradients of a softmax loss through its negatives, given the log-sum-exps.

    The `loss` of the sums is the negatives' share of the probability. frozen: as additive_pass.
    """
    assert samples.logsumexp is not None
    logsumexp = samples.logsumexp[:, None]

    def body(sums: Sums, block: _Block) -> Sums:
        logits, by_cos, by_bias = _terms(loss, samples, block)
        logits = jnp.where(block.valid, logits, -jnp.inf)
        probability = share(logits, logsumexp)
        terms = Terms(probability, probability * by_cos, probability * by_bias)
        return _accumulate(sums, loss, samples, block, factor, terms)

    return _fold(body, _zeros(loss, prototypes, samples, frozen), prototypes, samples, block_size)
