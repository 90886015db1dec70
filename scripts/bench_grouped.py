"""MobileFaceNet's convolutions in groups, all three passes in ms, with their errors.

    python scripts/bench_grouped.py --batch=32 --json=grouped.json

XLA is lax's convolution, taps is the sum over shifted maps that CPUs have without the kernels,
kernels are uniface_jax.native's, PyTorch has its default layout. All are float32, in processes of
their own that take turns; what counts is the least of the turns. Errors are the largest against
float64, as a share of its largest value. XLA takes seconds and is left out without --xla.
"""

import argparse
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from turns import Worker, interleave, serve, write_json

from uniface_jax.cli import say
from uniface_jax.runtime.xla_flags import set_flags

# Input side, channels, groups, kernel, stride, padding, how many of them mbf has.
SHAPES = (
    (56, 128, 64, 3, 1, 1, 1),
    (56, 128, 128, 3, 2, 1, 1),
    (28, 128, 128, 3, 1, 1, 4),
    (28, 256, 256, 3, 2, 1, 1),
    (14, 256, 256, 3, 1, 1, 6),
    (14, 512, 512, 3, 2, 1, 1),
    (7, 256, 256, 3, 1, 1, 2),
    (7, 512, 512, 7, 1, 0, 1),
)
PARTS = ("forward", "input", "kernel")
Arrays = tuple[np.ndarray, np.ndarray, np.ndarray]


def arrays(batch: int, shape: tuple) -> Arrays:
    """Return x, the kernel and the gradient by y."""
    side, channels, groups, kernel, stride, padding, _ = shape
    rng = np.random.default_rng(0)
    out = (side + 2 * padding - kernel) // stride + 1
    shapes = (
        (batch, side, side, channels),
        (kernel, kernel, channels // groups, channels),
        (batch, out, out, channels),
    )
    x, weight, y_bar = (rng.standard_normal(of).astype(np.float32) for of in shapes)
    return x, weight, y_bar


def in_jax(batch: int, part: str, shape: tuple, form: str) -> tuple[Callable, np.ndarray]:
    """Return a run, and what it gives."""
    import os

    if form != "kernels":
        os.environ["UNIFACE_NATIVE"] = "0"
    set_flags()
    import jax
    import jax.numpy as jnp

    from uniface_jax.models.convolution import plain
    from uniface_jax.models.depthwise import convolve_grouped

    stride, padding = shape[4:6]
    convolve = plain if form == "xla" else convolve_grouped
    given = [jnp.asarray(array) for array in arrays(batch, shape)]

    def run(x: jax.Array, weight: jax.Array, y_bar: jax.Array) -> jax.Array:
        y, backward = jax.vjp(lambda x, w: convolve(x, w, stride, padding), x, weight)
        return y if part == "forward" else backward(y_bar)[PARTS.index(part) - 1]

    compiled = jax.jit(run).lower(*given).compile()
    return lambda: jax.block_until_ready(compiled(*given)), np.asarray(compiled(*given))


def in_torch(
    batch: int, part: str, shape: tuple, dtype: str = "float32"
) -> tuple[Callable, np.ndarray]:
    """Return a run, and what it gives, in the layout of JAX's."""
    import torch

    _, _, groups, _, stride, padding, _ = shape
    x, weight, y_bar = (torch.as_tensor(a.astype(dtype)) for a in arrays(batch, shape))
    x, y_bar = (t.permute(0, 3, 1, 2).contiguous() for t in (x, y_bar))
    weight = weight.permute(3, 2, 0, 1).contiguous()

    def run() -> torch.Tensor:
        if part == "forward":
            with torch.inference_mode():
                return torch.nn.functional.conv2d(x, weight, None, stride, padding, 1, groups)
        mask = [part == "input", part == "kernel", False]
        by_both = torch.ops.aten.convolution_backward(
            y_bar, x, weight, None, [stride] * 2, [padding] * 2, [1, 1], False, [0, 0], groups, mask
        )
        return by_both[PARTS.index(part) - 1]

    back = (2, 3, 1, 0) if part == "kernel" else (0, 2, 3, 1)
    return run, run().permute(*back).numpy()


def reference(batch: int, part: str, shape: tuple) -> np.ndarray:
    """Return the pass in float64, by NumPy."""
    _, channels, groups, kernel, stride, padding, _ = shape
    x, weight, y_bar = (array.astype(np.float64) for array in arrays(batch, shape))
    x = np.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    out, each = y_bar.shape[1], channels // groups
    found = {"forward": np.zeros_like(y_bar), "input": np.zeros_like(x)}
    found["kernel"] = np.zeros_like(weight)
    inputs = np.arange(channels) // each * each
    for i in range(kernel):
        for j in range(kernel):
            rows, columns = (slice(k, k + (out - 1) * stride + 1, stride) for k in (i, j))
            for number in range(each):
                met = x[:, rows, columns][..., inputs + number]
                if part == "forward":
                    found[part] += met * weight[i, j, number]
                elif part == "kernel":
                    found[part][i, j, number] = np.einsum("bhwc,bhwc->c", met, y_bar)
                else:
                    terms = (y_bar * weight[i, j, number]).reshape(*y_bar.shape[:3], groups, each)
                    found[part][:, rows, columns, number::each] += terms.sum(-1)
    if part == "input" and padding:
        return found[part][:, padding:-padding, padding:-padding]
    return found[part]


VARIANTS: dict[str, Callable[..., tuple[Callable, np.ndarray]]] = {
    "xla": partial(in_jax, form="xla"),
    "taps": partial(in_jax, form="taps"),
    "kernels": partial(in_jax, form="kernels"),
    "torch": in_torch,
}


def prepare(args: argparse.Namespace, job: str, about: dict[str, float]) -> Callable:
    part, number = job.split("-")
    run, value = VARIANTS[args.variant](args.batch, part, SHAPES[int(number)])
    expected = reference(args.batch, part, SHAPES[int(number)])
    about["error"] = float(np.abs(value - expected).max() / np.abs(expected).max())
    return run


def measure(args: argparse.Namespace) -> list[dict]:
    """One row a shape and pass; the variants of it take turns."""
    names = ["xla"] * args.xla + ["taps", "kernels"] + ["torch"] * bool(find_spec("torch"))
    workers = [Worker(__file__, name, [f"--batch={args.batch}"]) for name in names]
    say(f"ms, and errors in units of 1e-7, of {' / '.join(names)}")
    rows = []
    for number in range(len(SHAPES)) if not args.quick else (0, 4):
        for part in PARTS:
            job = f"{part}-{number}"
            interleave(workers, args.turns, job)
            timed = [worker for worker in workers if worker.values(job=job)]
            row: dict = {"shape": SHAPES[number], "part": part}
            row["ms"] = {w.name: 1e3 * min(w.values(job=job)) for w in timed}
            row["error"] = {w.name: w.values("error", job)[0] for w in timed}
            rows.append(row)
            show(row)
    for worker in workers:
        worker.end()
        if worker.failed:
            say(f"{worker.name} failed: {worker.failed}")
    return rows


def show(row: dict) -> None:
    side, channels, groups, kernel, stride, _, count = row["shape"]
    name = (
        f"{side:2}x{side:<2} {channels}, groups of {channels // groups}, {kernel}x{kernel}/{stride}"
    )
    each = " / ".join(f"{ms:7.2f}" for ms in row["ms"].values())
    errors = " / ".join(f"{error * 1e7:4.1f}" for error in row["error"].values())
    say(f"{name}, x{count}  {row['part']:7} {each}    {errors}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--xla", action="store_true", help="XLA's own convolutions as well")
    parser.add_argument("--quick", action="store_true", help="two shapes alone, 3 turns")
    parser.add_argument("--json", type=Path, help="file for all numbers")
    parser.add_argument("--variant", choices=VARIANTS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.variant:
        about: dict[str, float] = {}
        serve(lambda job: prepare(args, job, about), warm=True, about=about)
        return
    if args.quick:
        args.turns = 3
    rows = measure(args)
    write_json(args.json, {"batch": args.batch, "rows": rows})


if __name__ == "__main__":
    main()
