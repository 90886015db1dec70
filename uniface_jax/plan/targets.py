"""Accelerators by name, and their figures by the makers' data sheets."""

import math
import re
from typing import NamedTuple

from uniface_jax.errors import UserError
from uniface_jax.runtime.chips import Chip


class Card(NamedTuple):
    """Accelerator by its data sheet.

    memory: bytes. tflops: of bfloat16 products with float32 sums. bandwidth: bytes/s of its memory.
    link: bytes/s that it sends to others. generation: a GPU's compute capability, a TPU's number.
    on_chip: bytes that a TPU's compiler may hold arrays in beside its memory, without the 16 MiB
    that it leaves to kernels. workspace: bytes that XLA gives cuBLAS.
    """

    memory: float
    tflops: float
    bandwidth: float
    link: float
    generation: tuple[int, int]
    on_chip: int = 0
    workspace: int = 0


MIB = 2**20
CARDS = {
    "a100": Card(85_100_068_864, 312, 2039.04e9, 300e9, (8, 0), workspace=4 * MIB),
    "h100": Card(84_942_979_072, 989, 3352.32e9, 450e9, (9, 0), workspace=32 * MIB),
    "h200": Card(151_397_597_184, 989, 4800e9, 450e9, (9, 0), workspace=32 * MIB),
    "b200": Card(191_514_411_008, 2250, 7672.32e9, 900e9, (10, 0), workspace=32 * MIB),
    "v4": Card(32 * 2**30, 275, 1228e9, 300e9, (4, 0), on_chip=16 * MIB),
    "v5e": Card(16 * 2**30, 197, 819e9, 200e9, (5, 0), on_chip=112 * MIB),
    "v5p": Card(95 * 2**30, 459, 2765e9, 600e9, (5, 0), on_chip=48 * MIB),
    "v6e": Card(32 * 2**30, 918, 1640e9, 448e9, (6, 0), on_chip=112 * MIB),
}
GPUS = ("a100", "h100", "h200", "b200")
_ALLOWED = (
    f"allowed are {', '.join(GPUS)} (with --devices), and TPUs with their topology of whole hosts, "
    "2x2 chips each, as v5e:4x4, v6e:2x4, v4:2x2x2 or v5p:2x2x4, or of one chip, as v5e:1x1"
)


class Target(NamedTuple):
    """So many devices of a kind; topology: None, or the TPUs' as in 4x4."""

    kind: str
    topology: str | None
    devices: int

    @property
    def card(self) -> Card:
        """Return the device by its data sheet."""
        return CARDS[self.kind]

    @property
    def is_gpu(self) -> bool:
        """Return True for a GPU, False for a TPU."""
        return self.kind in GPUS

    @property
    def chip(self) -> Chip:
        """Return the device as products of few bits are asked for."""
        return Chip("gpu" if self.is_gpu else "tpu", self.card.generation)

    def tflops(self, dtype: str) -> float:
        """Return the TFLOP/s of products of a model in `dtype`: GPUs take float32 as TF32."""
        return self.card.tflops / (2 if dtype == "float32" and self.kind in GPUS else 1)

    @property
    def name(self) -> str:
        """Return the target as it is given."""
        return self.kind if self.topology is None else f"{self.kind}:{self.topology}"


def parse(text: str, devices: int) -> Target:
    """Return the target that a command line names; `devices` are those of a GPU.

    Raises UserError.

    Example:
        >>> parse("v5e:4x4", 8).devices
        16
    """
    kind, _, topology = text.lower().partition(":")
    if kind in GPUS and not topology:
        return Target(kind, None, devices)
    axes = 3 if kind in ("v4", "v5p") else 2
    if kind in CARDS.keys() - set(GPUS) and re.fullmatch(
        "x".join([r"[1-9]\d{0,2}"] * axes), topology
    ):
        sizes = [int(size) for size in topology.split("x")]
        if set(sizes) == {1} or sizes[0] % 2 == sizes[1] % 2 == 0:
            return Target(kind, topology, math.prod(sizes))
    raise UserError(f"--target={text}: {_ALLOWED}")
