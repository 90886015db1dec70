"""Measure what products of few bits cost each loss: largest relative errors against float64.

    python scripts/table_loss_precision.py [--products=float32,bfloat16] [--losses=uce,nsl]
        [--batch=256] [--classes=1000] [--dim=512]

Every loss of the registry through the streamed head, on the same random features, half of them near
their prototypes: in float64, and in float32 with the factors of the matrix products in each of the
types named, as head.product_dtype. An error is that of the loss, and of a gradient by its norm:
|g - g64| / |g64|, the largest over features, prototypes and bias.
"""

import argparse
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from uniface_jax import losses
from uniface_jax.cli import say
from uniface_jax.head.blocks import Prototypes
from uniface_jax.head.draws import with_own_draws
from uniface_jax.head.loss import Products, Shard, loss_and_gradients
from uniface_jax.head.positives import gather
from uniface_jax.runtime.parallel import AXIS


def problem(batch: int, classes: int, dim: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return features, prototypes and labels; float32 numbers, so that all precisions see them."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, classes, batch)
    prototypes = rng.standard_normal((classes, dim)) / np.sqrt(dim)
    features = rng.standard_normal((batch, dim))
    near = 20 * prototypes[labels] + 0.5 * features
    features[::2] = near[::2]
    return np.float32(features), np.float32(prototypes), labels


def run(name: str, arrays: tuple[np.ndarray, ...], dtype: Any, product_dtype: Any) -> list[Any]:
    """Return loss and gradients of one loss, computed in `dtype`."""
    features, prototypes, labels = arrays
    loss, count = losses.create(name), len(prototypes)

    def device(features: Any, prototypes: Any, bias: Any) -> Any:
        shard = Shard(Prototypes(prototypes, bias, jnp.ones(count, bool)), 0, count)
        drawn = with_own_draws(loss, jax.random.key(0), len(labels))
        batch = gather(features, jnp.asarray(labels, jnp.int32))
        result = loss_and_gradients(
            drawn, shard, batch, loss.initial_statistics(), Products(256, product_dtype)
        )
        return result.loss, *result.gradients

    mesh = Mesh(np.array(jax.devices()[:1]), (AXIS,))
    mapped = jax.shard_map(device, mesh=mesh, in_specs=P(), out_specs=P(), check_vma=False)
    bias = np.full(count if loss.bias == "class" else (), loss.initial_bias(count, 1.0), dtype)
    found = jax.jit(mapped)(features.astype(dtype), prototypes.astype(dtype), bias)
    return [np.asarray(x, np.float64) for x in found]


def errors(found: list[Any], exact: list[Any]) -> tuple[float, float]:
    """Return the relative error of the loss, and the largest of a gradient."""
    relative = [
        float(np.linalg.norm(np.ravel(x - y)) / np.linalg.norm(np.ravel(y)))
        for x, y in zip(found, exact, strict=True)
        if np.any(y)
    ]
    return relative[0], max(relative[1:])


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch", type=int, default=256, help="samples")
    parser.add_argument("--classes", type=int, default=1000, help="classes")
    parser.add_argument("--dim", type=int, default=512, help="length of a feature")
    parser.add_argument("--products", default="float32,bfloat16", help="types, with commas between")
    parser.add_argument("--losses", default=",".join(losses.LOSSES), help="with commas between")
    args = parser.parse_args()
    arrays = problem(args.batch, args.classes, args.dim)
    types = args.products.split(",")
    heads = [f"{name}: {part}" for name in types for part in ("loss", "gradient")]
    say(f"| loss | {' | '.join(heads)} |", f"|{' --- |' * (1 + len(heads))}")
    for name in args.losses.split(","):
        with jax.enable_x64(True):
            exact = run(name, arrays, np.float64, None)
        each = [errors(run(name, arrays, np.float32, jnp.dtype(kind)), exact) for kind in types]
        say(f"| {name} | {' | '.join(f'{value:.1e}' for pair in each for value in pair)} |")


if __name__ == "__main__":
    main()
