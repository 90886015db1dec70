"""Form of a loss: element-wise functions of cosines, which the head applies by blocks.

A loss compares the cosine of a sample with its own prototype (the positive) and with all other
prototypes (the negatives). There are two families:

- additive:  loss_i = positive(cos_iy) + sum over negatives j of negative(cos_ij)
- softmax:   loss_i = logsumexp(positive(cos_iy), negative(cos_ij) for all j) - positive(cos_iy)
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp

# (cosine, bias, *context) -> value, element by element. Bias and context broadcast against the
# cosine; the context is what the loss's `prepare` made of the sample, nothing where it has none.
Elementwise = Callable[..., jax.Array]
Context = tuple[jax.Array, ...]
Gradient = Literal["formula", "detached"]  # see with_gradient
GRADIENTS: tuple[Gradient, ...] = ("formula", "detached")
Statistics = Mapping[str, jax.Array]
# (positive cosines [B], feature norms [B], statistics) -> (arrays [B] of context, new statistics);
# of a loss that draws, its draws [B] come fourth.
Prepare = Callable[..., tuple[Context, Statistics]]


@dataclass(frozen=True)
class Loss:
    """One loss with its hyperparameters bound.

    family: which of the two sums above; positive and negative are terms of the loss for the
        additive family and logits for softmax.
    scale: s, by which cosines are multiplied.
    bias: "none", "shared" (one learned scalar for all classes: the unified threshold) or "class"
        (one per class).
    weight: a factor of the whole loss.
    start: number of classes in a step -> the bias before training; None: log(10 C).
    threshold_of_bias: bias -> the cosine above which a pair counts as positive; None: bias / scale.
    statistics: names and first values of scalars that are carried from batch to batch.
    clipped_cross_entropy: λ, where negative(cos, b) is λ clipped_softplus(s cos - b, s), for which
        there is a kernel on CPUs; None for any other function.
    prepare: makes the samples' context and the new statistics of a batch. No gradient flows
        through it.
    draws: True where prepare takes one draw of the standard normal a sample; see with_draws.
    by_norm: True where the context is the feature's norm, and the gradient flows through it:
        positive(cos, b, norm). Such a loss has no prepare, and its negatives leave the norm alone.
    penalty: of a loss by norm: feature norm -> what is added to the sample's loss.
    subcentres: K prototypes a class, of whose cosines with a sample the largest is the class's.
    pair_whisker: w of UNPG, by which negative pairs of samples are logits of every row; None: none
        are. Of the softmax family alone.
    relative: True where the head also returns the cosines that a sample's quality goes by, with its
        own class and with the nearest of the others; see head/quality.py.
    expectation: the loss that is coupled with this one against class expectations; see
        head/expectation.py.
    odds: [B], of a softmax loss that is coupled with another one: the logarithm of the other's
        negatives over its positive, which count among this one's.
    """

    family: Literal["additive", "softmax"]
    positive: Elementwise
    negative: Elementwise
    scale: float
    bias: Literal["none", "shared", "class"] = "none"
    weight: float = 1.0
    start: Callable[[float], float] | None = None
    threshold_of_bias: Callable[[jax.Array], jax.Array] | None = None
    statistics: Mapping[str, float] = field(default_factory=dict)
    clipped_cross_entropy: float | None = None
    prepare: Prepare | None = None
    draws: bool = False
    by_norm: bool = False
    penalty: Callable[[jax.Array], jax.Array] | None = None
    subcentres: int = 1
    pair_whisker: float | None = None
    relative: bool = False
    expectation: "Loss | None" = None
    odds: jax.Array | None = None

    def initial_bias(self, num_classes: int, sampling_rate: float) -> float:
        """Return the bias before training; by default log(10 C r), as the release's UCE and BCE.

        0 for losses without a bias.
        """
        if self.bias == "none":
            return 0.0
        taking_part = num_classes * sampling_rate
        return self.start(taking_part) if self.start else math.log(10 * taking_part)

    def threshold(self, bias: jax.Array) -> jax.Array:
        """Return the cosine above which a pair counts as positive, of the bias's shape."""
        return self.threshold_of_bias(bias) if self.threshold_of_bias else bias / self.scale

    def initial_statistics(self) -> dict[str, jax.Array]:
        """Return the scalars that this loss carries along, before the first batch."""
        return {name: jnp.asarray(value, jnp.float32) for name, value in self.statistics.items()}

    def with_draws(self, draws: jax.Array) -> "Loss":
        """Return the loss whose samples have these draws [B]; itself where it draws nothing."""
        prepare = self.prepare
        if not self.draws or prepare is None:
            return self

        def given(cos: jax.Array, norm: jax.Array, statistics: Statistics) -> Any:
            return prepare(cos, norm, statistics, draws)

        return replace(self, prepare=given, draws=False)

    def context(
        self, cos: jax.Array, norm: jax.Array, statistics: Statistics
    ) -> tuple[Context, Statistics]:
        """Return the context of samples with these positive cosines and norms, [B] each.

        The new statistics are returned with it. A loss that draws is given its draws first.
        """
        if self.by_norm:
            return (norm,), statistics
        return self.prepare(cos, norm, statistics) if self.prepare else ((), statistics)


@partial(jax.custom_jvp, nondiff_argnums=(1,))
def clipped_softplus(z: jax.Array, limit: float) -> jax.Array:
    """Compute log(1 + exp(clip(z, -limit, limit))), with no gradient outside, nor overflow."""
    return _softplus(jnp.clip(z, -limit, limit), limit)[0]


@clipped_softplus.defjvp
def _clipped_softplus_jvp(
    limit: float, primals: tuple[jax.Array], tangents: tuple[jax.Array]
) -> tuple[jax.Array, jax.Array]:
    (z,), (tangent,) = primals, tangents
    value, sigmoid = _softplus(jnp.clip(z, -limit, limit), limit)
    return value, jnp.where(jnp.abs(z) <= limit, sigmoid, 0.0) * tangent


def _softplus(z: jax.Array, limit: float) -> tuple[jax.Array, jax.Array]:
    """Compute softplus(z) and its slope for |z| <= limit: one exp, the main cost, serves both."""
    # The shorter form, where exp(z) is known to be finite, as it is for the usual limit of 64.
    if isinstance(limit, float | int) and limit < math.log(float(jnp.finfo(z.dtype).max)):
        power = jnp.exp(z)
        return jnp.log1p(power), power / (1 + power)
    small = jnp.exp(-jnp.abs(z))
    return jnp.maximum(z, 0) + jnp.log1p(small), jnp.where(z >= 0, 1.0, small) / (1 + small)


def sine(cos: jax.Array) -> jax.Array:
    """Compute sin(arccos(cos)); the floor keeps the slope finite at cos = ±1."""
    return jnp.sqrt(jnp.maximum(1 - jnp.square(cos), jnp.finfo(cos.dtype).eps))


def angle(cos: jax.Array, margin: float = 1e-5) -> jax.Array:
    """Compute the angle in radians of a cosine cut to ±(1 - margin), for a finite slope."""
    return jnp.arccos(jnp.clip(cos, -1 + margin, 1 - margin))


def cosine_of_sum(cos: jax.Array, margin: float | jax.Array) -> jax.Array:
    """Return cos(θ + m) of cosines, m in radians; it rises again where θ + m > π.

    m: one for all, or of each cosine.
    """
    if isinstance(margin, jax.Array):
        return cos * jnp.cos(margin) - sine(cos) * jnp.sin(margin)
    return cos * math.cos(margin) - sine(cos) * math.sin(margin)


def added_angle(cos: jax.Array, margin: float | jax.Array) -> jax.Array:
    """Return cos(θ + m) of cosines, continued where θ + m > π by cos θ - m sin m.

    There cos(θ + m) would rise again, and push samples away from their own class. The continuation
    is the CurricularFace repository's. m: one for all, or of each cosine, of which one below 0
    needs no continuation.
    """
    if isinstance(margin, jax.Array):
        beyond = cos <= -jnp.cos(jnp.maximum(margin, 0))
        return jnp.where(beyond, cos - margin * jnp.sin(margin), cosine_of_sum(cos, margin))
    beyond = cos <= math.cos(math.pi - margin)
    return jnp.where(beyond, cos - margin * math.sin(margin), cosine_of_sum(cos, margin))


def straight_through(value: jax.Array, cos: jax.Array) -> jax.Array:
    """Return `value` with the slope of `cos`: SphereFace-R's characteristic gradient detachment."""
    return cos + jax.lax.stop_gradient(value - cos)


def with_gradient(
    function: Callable[[jax.Array], jax.Array], gradient: Gradient
) -> Callable[[jax.Array], jax.Array]:
    """Return a margin's function of the cosine with the slope that `gradient` names.

    "formula": its own. "detached": 1, that of the cosine itself, as in arcface_torch, opensphere
    and other codes that apply margins without recording them: at s = 64, m = .5 ArcFace's own logit
    then has the slope 64 everywhere, where the formula's is 407 at 5 degrees and 38 at 120.
    """
    if gradient == "formula":
        return function
    return lambda cos: straight_through(function(cos), cos)
