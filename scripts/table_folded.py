"""How far gradients in half precision are from double precision, plain and folded.

    python scripts/table_folded.py [--network=lresnet18] [--images=16] [--stem_stride=2]

Features and gradients of one network (config.model.kernels, uniface_jax/models/folded.py) with the
same random weights, images and cotangent: relative root-mean-square distance, in percent, of those
computed in bfloat16 and in float32 from those in float64, by kind of parameter, on this machine.
"""

import argparse
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from uniface_jax import models
from uniface_jax.cli import say

KINDS = ("features", "all gradients", "kernel", "scale", "bias", "slope")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", default="lresnet18", choices=sorted(models.NETWORKS))
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--blocks", type=int, nargs=4, default=(1, 2, 1, 1), help="of each stage")
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--stem_stride", type=int, default=2, choices=(1, 2))
    args = parser.parse_args()
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_enable_x64", True)
    fields = {"width": args.width, "stem_stride": args.stem_stride, "stage_sizes": args.blocks}
    say("kernels   dtype     " + "".join(f"{kind:>15}" for kind in KINDS))
    for (kernels, dtype), errors in table(args.network, args.images, fields).items():
        say(f"{kernels:10}{dtype:10}" + "".join(f"{100 * errors[kind]:15.6g}" for kind in KINDS))


def table(name: str, images: int, fields: Mapping[str, Any]) -> dict[tuple[str, str], dict]:
    """Return the errors by kind, for each form and dtype."""
    variables = drawn(name, images, fields)

    def of(kernels: str, dtype: str) -> tuple[np.ndarray, Any]:
        made = {"dtype": jnp.dtype(dtype), "fold": kernels == "folded", "dropout": 0.0}
        return computed(models.create(name, **made, **fields), variables, jnp.dtype(dtype))

    truth = of("plain", "float64")
    return {
        (kernels, dtype): errors(of(kernels, dtype), truth)
        for dtype in ("bfloat16", "float32", "float64")
        for kernels in ("plain", "folded")
    }


def drawn(name: str, images: int, fields: Mapping[str, Any]) -> tuple[Any, Any, jax.Array]:
    """Return parameters as they might be after some training, statistics and images."""
    network = models.create(name, **fields)
    params, statistics = jax.jit(lambda: models.initialize(network, jax.random.key(0)))()
    rng = np.random.default_rng(0)

    def moved(x: jax.Array) -> jax.Array:
        near_one = rng.uniform(0.5, 1.5, x.shape) if x.ndim == 1 else np.ones(())
        return jnp.asarray(np.where(x == 0, 0.3 * rng.normal(size=x.shape), x) * near_one, x.dtype)

    shape = (images, models.IMAGE_SIZE, models.IMAGE_SIZE, 3)
    faces = jnp.asarray(rng.uniform(-1, 1, shape), jnp.float32)
    return jax.tree.map(moved, params), statistics, faces


def computed(
    network: models.Network, variables: tuple[Any, Any, jax.Array], dtype: jnp.dtype
) -> tuple[np.ndarray, Any]:
    """Return features and the gradients with respect to the parameters, of a fixed cotangent."""
    params, statistics, faces = variables
    wide = jnp.float64 if dtype == jnp.float64 else jnp.float32
    params, statistics = jax.tree.map(lambda x: x.astype(wide), (params, statistics))

    @jax.jit
    def both(params: Any) -> tuple[jax.Array, Any]:
        def features(params: Any) -> jax.Array:
            held = {"params": params, "batch_stats": statistics}
            return network.apply(held, faces, train=True, mutable=["batch_stats"])[0]

        y, backward = jax.vjp(features, params)
        return y, backward(jnp.sin(jnp.arange(y.size)).reshape(y.shape).astype(y.dtype))[0]

    return jax.tree.map(lambda x: np.asarray(x, np.float64), both(params))


def errors(found: tuple[np.ndarray, Any], truth: tuple[np.ndarray, Any]) -> dict[str, float]:
    """Return relative root-mean-square distances by kind; of gradients, over arrays of a kind."""

    def far(pairs: list[tuple[np.ndarray, np.ndarray]]) -> float:
        each = [np.sum((a - b) ** 2) / np.sum(b**2) for a, b in pairs]
        return float(np.sqrt(np.mean(each)))

    ours, theirs = (jax.tree_util.tree_leaves_with_path(tree) for tree in (found[1], truth[1]))
    pairs = [(p[-1].key, (a, b)) for (p, a), (_, b) in zip(ours, theirs, strict=True)]
    by_kind = {kind: far([pair for name, pair in pairs if name == kind]) for kind in KINDS[2:]}
    return {KINDS[0]: far([(found[0], truth[0])]), KINDS[1]: far([p for _, p in pairs]), **by_kind}


if __name__ == "__main__":
    main()
