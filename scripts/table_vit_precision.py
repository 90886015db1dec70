"""Measure what products of few bits cost a ViT: relative errors of features and gradients.

    python scripts/table_vit_precision.py [--model=vit_t] [--depth=12] [--batch=16]

The network at its initial weights, training on random images without a mask: in float64, and in
each precision that a run may have: model.dtype, and with a + model.vit.product_dtype, of the
factors of the blocks' linear layers. An error is a norm, |x - x64| / |x64|: of all features, and of
the gradient of their product with fixed random numbers, over all parameters.
"""

import argparse
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from uniface_jax import models
from uniface_jax.cli import say
from uniface_jax.config.ranges import DTYPES
from uniface_jax.runtime.low_precision import LARGEST

PRECISIONS = (*DTYPES, *(f"{dtype}+{low}" for dtype in DTYPES for low in LARGEST))


def run(args: argparse.Namespace, precision: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the features [B, D] and the gradient of all parameters, as one vector."""
    dtype, _, low = precision.partition("+")
    sizes = {"depth": args.depth, "mask_ratio": 0.0, "drop_path": 0.0}
    network = models.create(args.model, dtype=jnp.dtype(dtype), product_dtype=low or None, **sizes)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (args.batch, 112, 112, 3), np.uint8)
    weights = rng.standard_normal((args.batch, 512)).astype(np.float32)
    with jax.enable_x64(False):  # the same numbers, float32, whatever they are computed in
        plain = models.create(args.model, dtype=jnp.dtype("float32"), **sizes)
        parameters, statistics = models.initialize(plain, jax.random.key(0))

    wide = np.float64 if dtype == "float64" else np.float32
    parameters = jax.tree.map(lambda x: np.asarray(x, wide), parameters)

    def product(parameters: Any, images: jax.Array) -> tuple[jax.Array, jax.Array]:
        variables = {"params": parameters, "batch_stats": statistics}
        inputs = models.normalize(images).astype(dtype)
        features, _ = network.apply(variables, inputs, train=True, mutable=["batch_stats"])
        return jnp.sum(features * weights), features

    gradient, features = jax.jit(jax.grad(product, has_aux=True))(parameters, images)
    each = [np.asarray(x, np.float64).ravel() for x in jax.tree.leaves(gradient)]
    return np.asarray(features, np.float64), np.concatenate(each)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="vit_t", help="a ViT by name")
    parser.add_argument("--depth", type=int, help="blocks, where not all of them")
    parser.add_argument("--batch", type=int, default=16, help="images")
    parser.add_argument(
        "--precisions", default=",".join(PRECISIONS), help="as model.dtype or dtype+product_dtype"
    )
    args = parser.parse_args()
    with jax.enable_x64(True):
        exact = run(args, "float64")
    say("| precision | features | gradient |", "| --- | --- | --- |")
    for precision in args.precisions.split(","):
        found = run(args, precision)
        errors = (
            np.linalg.norm(x - y) / np.linalg.norm(y) for x, y in zip(found, exact, strict=True)
        )
        say(f"| {precision} | {' | '.join(f'{error:.1e}' for error in errors)} |")


if __name__ == "__main__":
    main()
