"""Rounding of the fused convolutions of inference and of lax's, against float64, shape by shape.

    python scripts/table_fused_error.py [--network=lresnet50] [--images=2] [--json=error.json]

Every convolution of the network with its batch norms, PReLU and addition, of normal maps and
vectors and kernels of unit gain, and at last the features of the whole network, of random images.
The error is the root mean square, and the largest, each as a share of that of the values.
"""

import argparse
from functools import partial
from pathlib import Path

import jax
import numpy as np
from bench_onnx import trained_looking
from turns import write_json

from uniface_jax import models
from uniface_jax.cli import say
from uniface_jax.inference import fused
from uniface_jax.models.channels import affine, prelu
from uniface_jax.models.convolution import plain
from uniface_jax.models.mobilefacenet import VARIANTS
from uniface_jax.native.fused_convolution import Around, forward, is_winograd

Shape = tuple[tuple[int, ...], tuple[int, ...], int, int]


def shapes_of(network: models.Network, images: int) -> dict[Shape, list[Around]]:
    """List the convolutions: (x, kernel, stride, padding) and what is around each, as shapes."""
    found: dict[Shape, list[Around]] = {}

    def noted(x, kernel, stride, padding, around):
        found.setdefault((x.shape, kernel.shape, stride, padding), []).append(around)
        return forward(x, kernel, stride, padding, around)

    variables = jax.eval_shape(lambda: models.initialize(network, jax.random.key(0)))
    trees = dict(zip(("params", "batch_stats"), variables, strict=True))
    pixels = jax.ShapeDtypeStruct((images, models.IMAGE_SIZE, models.IMAGE_SIZE, 3), np.float32)
    fused.forward = noted
    try:
        jax.eval_shape(partial(fused.features, network), trees, pixels)
    finally:
        fused.forward = forward
    return found


def unfused(x, kernel, stride, padding, around: Around):
    """Compute what forward() does by lax, in the arrays' own precision."""
    if around.before is not None:
        x = affine(x, around.before.scale, around.before.shift)
    y = affine(plain(x, kernel, stride, padding), around.after.scale, around.after.shift)
    y = y if around.slope is None else prelu(y, around.slope)
    return y if around.added is None else y + around.added


def errors(found, exact) -> tuple[float, float]:
    apart = np.asarray(found, np.float64) - exact
    rms = np.sqrt(np.square(apart).mean() / np.square(exact).mean())
    return float(rms), float(np.abs(apart).max() / np.abs(exact).max())


def compared(ours, lax, *arrays) -> dict[str, tuple[float, float]]:
    """Return the errors of two functions of float32 arrays, the second being exact in float64."""
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), arrays)
        exact = np.asarray(jax.jit(lax)(*wide))
    found = {"lax": jax.jit(lax)(*arrays), "fused": jax.jit(ours)(*arrays)}
    return {name: errors(value, exact) for name, value in found.items()}


def of_shape(shape: Shape, around: Around, rng: np.random.Generator) -> dict:
    x, kernel, stride, padding = shape
    gain = np.prod(kernel[:3]) ** -0.5
    leaves, treedef = jax.tree.flatten(around)
    filled = [rng.standard_normal(leaf.shape).astype(np.float32) for leaf in leaves]
    maps = rng.standard_normal(x).astype(np.float32)
    kernels = (gain * rng.standard_normal(kernel)).astype(np.float32)
    given = jax.tree.unflatten(treedef, filled)

    def called(function):
        return lambda x, kernel, around: function(x, kernel, stride, padding, around)

    return compared(called(forward), called(unfused), maps, kernels, given)


def of_network(network: models.Network, images: int, rng: np.random.Generator) -> dict:
    shapes = jax.eval_shape(lambda: models.initialize(network, jax.random.key(0)))
    trees = jax.tree_util.tree_map_with_path(partial(trained_looking, rng=rng), shapes)
    variables = dict(zip(("params", "batch_stats"), trees, strict=True))
    size = models.IMAGE_SIZE
    pixels = rng.uniform(-1, 1, (images, size, size, 3)).astype(np.float32)

    def lax(variables, pixels):
        own = network.clone(dtype=pixels.dtype)
        return models.features(own, variables, pixels)

    return compared(partial(fused.features, network), lax, variables, pixels)


def show(label: str, row: dict) -> None:
    numbers = "   ".join(f"{rms:.1e} {most:.1e}" for rms, most in (row["lax"], row["fused"]))
    say(f"{label:34} {numbers}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", default="lresnet50", choices=[*models.NETWORKS, *VARIANTS])
    parser.add_argument("--images", type=int, default=2)
    parser.add_argument("--json", type=Path, help="file for all numbers")
    args = parser.parse_args()
    network = models.create(args.network)
    if not fused.suits(network):
        raise SystemExit("error: no kernels here (a CPU with a compiler has them)")
    rng = np.random.default_rng(0)
    say(f"{'':34} {'lax: rms':>7}, most   {'fused: rms':>7}, most")
    rows = {}
    for shape, arounds in shapes_of(network, args.images).items():
        (_, side, _, channels), (taps, _, _, outputs), stride, _ = shape
        kind = " F(4x4)" if is_winograd(*shape[:3]) else ""
        label = f"{side:3}x{side:<3} {channels:3} to {outputs:3}, {taps}x{taps}/{stride}{kind}"
        rows[label] = of_shape(shape, arounds[0], rng)
        show(label, rows[label])
    rows["features"] = of_network(network, args.images, rng)
    show(f"features of {args.network}", rows["features"])
    write_json(args.json, rows)


if __name__ == "__main__":
    main()
