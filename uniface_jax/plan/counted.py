"""A step compiled for a target: its memory, its kernels by kind and its collectives, as a table."""

import logging
import time
from functools import partial
from typing import Any, NamedTuple

import jax

from uniface_jax.errors import UserError
from uniface_jax.files.own_folder import own_folder_if_trusted
from uniface_jax.native import build
from uniface_jax.plan import kept, kernels, program, topology
from uniface_jax.plan.fleet import GB
from uniface_jax.plan.kernels import COLLECTIVE, Total
from uniface_jax.plan.targets import Target
from uniface_jax.train.from_config import Recipe

_log = logging.getLogger(__name__)


class Counted(NamedTuple):
    """Step as the target's compiler made it, on each device.

    memory: by its own account. kinds: kernels of a step by kind, and the bytes they move.
    collectives: kernel's name and the bytes that it reads, in the program's order, one for each
    run. text: the program. seconds: that compiling took, now or when it was kept.
    """

    target: Target
    memory: program.CompiledMemory
    kinds: dict[str, Total]
    collectives: list[tuple[str, int]]
    text: str
    seconds: float

    @property
    def total(self) -> Total:
        """Return the sum over all kinds."""
        each = self.kinds.values()
        return Total(sum(t.kernels for t in each), sum(t.bytes for t in each))

    def as_json(self) -> dict[str, Any]:
        """Return everything but the text by name, with totals."""
        return {
            "target": self.target.name,
            "devices": self.target.devices,
            "memory": self.memory._asdict() | {"total": self.memory.total},
            "kinds": {kind: total._asdict() for kind, total in self.kinds.items()},
            "collectives": [{"name": name, "bytes": size} for name, size in self.collectives],
            "compile_seconds": self.seconds,
            **self.total._asdict(),
        }


def count(recipe: Recipe, target: Target) -> Counted:
    """Compile the step for the target's devices and count what it runs.

    A program that was compiled before is not compiled again (kept.py). Raises UserError where the
    compiler is not installed, or makes no program.
    """
    made = _compiled(recipe, target)
    found = kernels.kernels(made.text)
    collectives = [
        (kernel.name, kernel.read)
        for kernel in found
        if kernel.kind == COLLECTIVE
        for _ in range(kernel.times)
    ]
    totals = kernels.by_kind(found)
    return Counted(target, made.memory, totals, collectives, made.text, made.seconds)


def _compiled(recipe: Recipe, target: Target) -> kept.Program:
    """Return the step as the target's compiler makes it, or made it, where that is kept."""
    devices = topology.devices_of(target)
    with build.off():
        lowered = program.lowered(recipe, devices)
    folder = own_folder_if_trusted("programs", partial(_log.warning, "programs are not kept: %s"))
    name = kept.key([lowered.as_text(), *topology.compiler(target)])
    found = kept.read(folder, name) if folder else None
    if found is None:
        began = time.monotonic()
        try:
            with build.off():
                compiled = lowered.compile(dict(topology.options(target)))
        except jax.errors.JaxRuntimeError as e:  # as where it does not fit
            said = (str(e).splitlines() or [type(e).__name__])[0][:300]
            raise UserError(f"--target={target.name}: its compiler made no program: {said}") from e
        seconds = time.monotonic() - began
        found = kept.Program(program.memory_of(compiled), compiled.as_text() or "", seconds)
        if folder:
            kept.write(folder, name, found)
    return found


def table(counted: Counted, flops: float) -> str:
    """Return the counts as text, with the milliseconds of bytes and of FLOPs at full rates."""
    card = counted.target.card
    rows = [*counted.kinds.items(), ("all", counted.total)]
    sent = [f"{name} {size / 1e6:.3g}" for name, size in counted.collectives]
    return "\n".join(
        [
            f"{'kind':30}{'kernels':>9}{'GB':>9}{'ms at full rate':>17}",
            *(
                f"{kind:30}{total.kernels:9,}{total.bytes / GB:9.2f}"
                f"{1e3 * total.bytes / card.bandwidth:17.2f}"
                for kind, total in rows
            ),
            f"{flops / 1e12:.4g} TFLOP: {flops / card.tflops / GB:.2f} ms at {card.tflops:g} "
            "TFLOP/s in bfloat16",
            *([f"collectives, MB: {', '.join(sent)}"] if sent else []),
        ]
    )
