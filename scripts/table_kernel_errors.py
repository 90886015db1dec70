"""Print the error of the CPU kernels against float64, beside XLA's, for all shapes of the networks.

    python scripts/table_kernel_errors.py [--networks=lresnet50,mbf,vit_s] [--batch=4] [--json=FILE]

Every convolution and every self-attention of the networks, forward and both gradients, of random
float32 maps: by uniface_jax/native, by XLA, and by NumPy in float64. An error is the root mean
square of the differences over that of the numbers, and the largest difference over the largest
number, both in units of 1e-7 (the last bit of a float32 is 0.6 to 1.2). Shapes without a kernel,
and those that networks leave to XLA, because it is as fast there, are in the table as well.
"""

import argparse
from collections.abc import Callable, Iterator
from dataclasses import asdict, astuple, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import float64_oracles
import jax
import jax.extend.core
import jax.numpy as jnp
import numpy as np
from turns import write_json

from uniface_jax import models
from uniface_jax.cli import say
from uniface_jax.models import FAMILIES
from uniface_jax.models.convolution import plain
from uniface_jax.models.vit import attend
from uniface_jax.native import attention, build, convolution, depthwise
from uniface_jax.runtime.xla_flags import set_flags

UNIT = 1e-7
PASSES = ("forward", "input gradient", "kernel gradient")


@dataclass(frozen=True, order=True)
class Convolution:
    """A convolution of square maps: their side and channels, and those of the kernel."""

    side: int
    inputs: int
    outputs: int
    groups: int
    taps: int
    stride: int
    padding: int

    def __str__(self) -> str:
        """Return how it is written in the table."""
        groups = f", {self.groups} groups" if self.groups > 1 else ""
        channels = f"{self.inputs} to {self.outputs}{groups}"
        return f"{self.side}x{self.side}, {channels}, {self.taps}x{self.taps}/{self.stride}"


@dataclass(frozen=True, order=True)
class SelfAttention:
    """Self-attention of so many tokens, of heads of so many channels."""

    tokens: int
    heads: int
    size: int

    def __str__(self) -> str:
        """Return how it is written in the table."""
        return f"attention of {self.tokens} tokens, {self.heads} heads of {self.size}"


@dataclass
class Row:
    """Errors of a shape by pass, (root mean square, largest): the kernel's, if any, and XLA's."""

    shape: str
    networks: list[str]
    kernel: dict[str, tuple[float, float]] = field(default_factory=dict)
    xla: dict[str, tuple[float, float]] = field(default_factory=dict)


def convolutions(name: str) -> Iterator[Convolution]:
    """Yield those of a network, from its program."""
    network = models.create(name)
    images = jax.ShapeDtypeStruct((1, models.IMAGE_SIZE, models.IMAGE_SIZE, 3), jnp.float32)
    with build.off():
        variables = jax.eval_shape(partial(models.initialize, network), jax.random.key(0))
        given = {"params": variables[0], "batch_stats": variables[1]}
        program = jax.make_jaxpr(partial(network.apply, train=False))(given, images)
    yield from _in_program(program.jaxpr)


def _in_program(program: Any) -> Iterator[Convolution]:
    for equation in program.eqns:
        if equation.primitive.name == "conv_general_dilated":
            x, kernel = (given.aval.shape for given in equation.invars)
            window = equation.params
            groups = window["feature_group_count"]
            stride, padding = window["window_strides"][0], window["padding"][0][0]
            yield Convolution(x[1], x[3], kernel[3], groups, kernel[0], stride, padding)
        for inner in jax.extend.core.jaxprs_in_params(equation.params):
            yield from _in_program(inner)


def self_attentions(name: str) -> Iterator[SelfAttention]:
    """Yield those of a ViT: of all tokens, and of those that a mask leaves in training."""
    network: Any = models.create(name)
    tokens = (models.IMAGE_SIZE // network.patch) ** 2
    for kept in {tokens, network.kept(tokens)}:
        yield SelfAttention(kept, network.heads, network.dim // network.heads)


def shapes_of(names: list[str]) -> dict[Convolution | SelfAttention, list[str]]:
    """Return all shapes of the networks, and who has them."""
    found: dict[Convolution | SelfAttention, list[str]] = {}
    for name in names:
        is_vit = models.family(name) == "vit"
        for shape in {*convolutions(name), *(self_attentions(name) if is_vit else ())}:
            found.setdefault(shape, []).append(name)
    return found


def errors(ours: Any, expected: np.ndarray) -> tuple[float, float]:
    """Return root mean square and largest difference, as shares of the numbers'."""
    difference = np.asarray(ours, np.float64) - expected
    square = np.sqrt(np.mean(difference**2) / np.mean(expected**2))
    return float(square), float(np.abs(difference).max() / np.abs(expected).max())


def of_convolution(shape: Convolution, batch: int, row: Row) -> None:
    """Fill the row of a convolution."""
    rng = np.random.default_rng(0)
    side, taps = shape.side, shape.taps
    x = rng.standard_normal((batch, side, side, shape.inputs), np.float32)
    kernel = rng.standard_normal(
        (taps, taps, shape.inputs // shape.groups, shape.outputs), np.float32
    )
    out = (side + 2 * shape.padding - taps) // shape.stride + 1
    y_bar = rng.standard_normal((batch, out, out, shape.outputs), np.float32)
    window = (shape.stride, shape.padding)
    expected = float64_oracles.convolution(x, kernel, y_bar, *window)

    @jax.jit
    def by_xla(x: Any, kernel: Any, y_bar: Any) -> Any:
        y, pull = jax.vjp(lambda x, kernel: plain(x, kernel, *window), x, kernel)
        return y, *pull(y_bar)

    for name, found, right in zip(PASSES, by_xla(x, kernel, y_bar), expected, strict=True):
        row.xla[name] = errors(found, right)
    kernels: Any = depthwise if shape.groups > 1 else convolution
    calls: tuple[Callable[[], Any], ...] = (
        lambda: kernels.forward(x, kernel, *window),
        lambda: kernels.input_gradient(y_bar, kernel, x.shape, *window),
        lambda: kernels.kernel_gradient(x, y_bar, kernel.shape, *window),
    )
    if not build.available() or (shape.groups > 1 and not depthwise.suits(kernel.shape)):
        return
    channels = (shape.outputs, shape.inputs, shape.outputs)
    for name, call, right, divided in zip(PASSES, calls, expected, channels, strict=True):
        if convolution.divides(divided):
            row.kernel[name] = errors(call(), right)


def of_attention(shape: SelfAttention, batch: int, row: Row) -> None:
    """Fill the row of a self-attention; its gradient is that by queries, keys and values."""
    rng = np.random.default_rng(0)
    width = shape.heads * shape.size
    qkv = rng.standard_normal((batch, shape.tokens, 3 * width), np.float32)
    mixed_bar = rng.standard_normal((batch, shape.tokens, shape.heads, shape.size), np.float32)
    expected = float64_oracles.attention(qkv, mixed_bar, shape.heads)

    @jax.jit
    def by_xla(qkv: Any, mixed_bar: Any) -> Any:
        def run(qkv: Any) -> Any:
            parts = qkv.reshape(batch, shape.tokens, 3, shape.heads, shape.size)
            return attend(parts[:, :, 0], parts[:, :, 1], parts[:, :, 2])

        mixed, pull = jax.vjp(run, qkv)
        return mixed, *pull(mixed_bar)

    for name, found, right in zip(PASSES[:2], by_xla(qkv, mixed_bar), expected, strict=True):
        row.xla[name] = errors(found, right)
    if attention.suits(qkv.shape, shape.heads, qkv.dtype):
        row.kernel[PASSES[0]] = errors(attention.forward(qkv, shape.heads), expected[0])
        gradient = attention.gradient(qkv, mixed_bar, shape.heads)
        row.kernel[PASSES[1]] = errors(gradient, expected[1])


def table(shapes: dict[Convolution | SelfAttention, list[str]], batch: int) -> Iterator[Row]:
    """Yield the rows, convolutions first, large maps first."""

    def place(shape: Convolution | SelfAttention) -> tuple[Any, ...]:
        first, *rest = astuple(shape)
        return isinstance(shape, SelfAttention), -first, *rest

    for shape in sorted(shapes, key=place):
        row = Row(str(shape), shapes[shape])
        if isinstance(shape, Convolution):
            of_convolution(shape, batch, row)
        else:
            of_attention(shape, batch, row)
        yield row


def cells(row: Row) -> list[str]:
    """Return a row as Markdown has it."""

    def cell(found: dict[str, tuple[float, float]], name: str) -> str:
        return " / ".join(f"{e / UNIT:.1f}" for e in found[name]) if name in found else "-"

    return [row.shape, *(cell(by, name) for name in PASSES for by in (row.kernel, row.xla))]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    built_in = [name for family in ("iresnet", "mobilefacenet", "vit") for name in FAMILIES[family]]
    parser.add_argument("--networks", default=",".join(built_in), help="with commas between")
    parser.add_argument("--batch", type=int, default=4, help="images")
    parser.add_argument("--json", type=Path, help="file for all numbers")
    args = parser.parse_args()
    set_flags()
    heads = [f"{name}: {by}" for name in PASSES for by in ("kernel", "XLA")]
    say(f"| shape | {' | '.join(heads)} |", f"|{' --- |' * (1 + len(heads))}")
    rows = []
    for row in table(shapes_of(args.networks.split(",")), args.batch):
        say(f"| {' | '.join(cells(row))} |")
        rows.append(row)
    worst = {
        by: max(error for row in rows for error, _ in getattr(row, by).values())
        for by in ("kernel", "xla")
        if any(getattr(row, by) for row in rows)
    }
    for by, error in worst.items():
        say(f"largest root mean square of {by}: {error / UNIT:.1f}e-7")
    write_json(args.json, {"batch": args.batch, "rows": [asdict(row) for row in rows]})


if __name__ == "__main__":
    main()
