"""A step compiled for a target: its memory, its kernels by kind and its collectives, as a table."""

from typing import Any, NamedTuple

from uniface_jax.plan import compilation, kernels, program
from uniface_jax.plan.fleet import GB
from uniface_jax.plan.kernels import COLLECTIVE, Kernel, Total
from uniface_jax.plan.targets import Card, Target
from uniface_jax.train.from_config import Recipe


class Counted(NamedTuple):
    """Step as the target's compiler made it, on each device.

    memory: by its own account. kinds: kernels of a step by kind, the bytes they move, the
    operations of their products. collectives: in the program's order. text: the program. seconds:
    that compiling took, now or when it was kept.
    """

    target: Target
    memory: program.CompiledMemory
    kinds: dict[str, Total]
    collectives: list[Kernel]
    text: str
    seconds: float

    @property
    def total(self) -> Total:
        """Return the sum over all kinds."""
        each = self.kinds.values()
        kernels, moved = sum(t.kernels for t in each), sum(t.bytes for t in each)
        return Total(kernels, moved, sum(t.flops for t in each))

    def as_json(self) -> dict[str, Any]:
        """Return everything but the text by name, with totals."""
        return {
            "target": self.target.name,
            "devices": self.target.devices,
            "memory": self.memory._asdict() | {"total": self.memory.total},
            "kinds": {kind: total._asdict() for kind, total in self.kinds.items()},
            "collectives": [
                {"name": kernel.name, "bytes": kernel.read, "beside": kernel.beside._asdict()}
                for kernel in self.collectives
                for _ in range(kernel.times)
            ],
            "compile_seconds": self.seconds,
            "kernels": self.total.kernels,
            "bytes": self.total.bytes,
        }


def count(recipe: Recipe, target: Target) -> Counted:
    """Compile the step for the target's devices and count what it runs.

    recipe: of program.planned. Raises UserError where the compiler is not installed, makes no
    program or dies.
    """
    made = compilation.compiled(recipe, target)
    found = kernels.kernels(made.text)
    collectives = [kernel for kernel in found if kernel.kind == COLLECTIVE]
    totals = kernels.by_kind(found)
    return Counted(target, made.memory, totals, collectives, made.text, made.seconds)


def table(counted: Counted, flops: float) -> str:
    """Return the counts as text: a roofline by kind at full rates, and what hides collectives.

    flops: those of the traced step.
    """
    card = counted.target.card
    rows = [*counted.kinds.items(), ("all", counted.total)]
    roofs = [_roof(total, card) for total in counted.kinds.values()]
    return "\n".join(
        [
            f"{'kind':30}{'kernels':>8}{'GB':>10}{'their ms':>10}{'TFLOP':>10}{'their ms':>10}"
            f"{'roof, ms':>10}",
            *(
                f"{kind:30}{total.kernels:8,}{total.bytes / GB:10.4g}"
                f"{1e3 * total.bytes / card.bandwidth:10.4g}{total.flops / 1e12:10.4g}"
                f"{total.flops / card.tflops / 1e9:10.4g}{1e3 * roof:10.4g}"
                for (kind, total), roof in zip(rows, [*roofs, sum(roofs)], strict=True)
            ),
            f"{flops / 1e12:.4g} TFLOP: {flops / card.tflops / 1e9:.2f} ms at {card.tflops:g} "
            f"TFLOP/s in bfloat16; memory at {card.bandwidth / GB:,.0f} GB/s",
            *_collective_lines(counted),
        ]
    )


def _roof(total: Total, card: Card) -> float:
    """Return the least seconds: of the memory's rate and the products', the one that takes more."""
    return max(total.bytes / card.bandwidth, total.flops / card.tflops / 1e12)


def _collective_lines(counted: Counted) -> list[str]:
    """Return a line for each collective: its bytes, and how much of its time others hide."""
    if not counted.collectives:
        return []
    card = counted.target.card
    lines = [
        f"{'collective':30}{'times':>8}{'MB sent':>10}{'their ms':>10}{'beside':>10}"
        f"{'their ms':>10}{'hidden':>10}"
    ]
    for kernel in counted.collectives:
        sent = _sent(kernel, counted.target.devices)
        alone, beside = sent / card.link, _roof(kernel.beside, card)
        hidden = min(beside / alone, 1.0) if alone else 1.0
        lines.append(
            f"{kernel.name[:29]:30}{kernel.times:8,}{sent / 1e6:10.4g}{1e3 * alone:10.4g}"
            f"{kernel.beside.kernels:10,}{1e3 * beside:10.4g}{hidden:10.0%}"
        )
    return [*lines, f"sent at {card.link / GB:,.0f} GB/s, the rate within a host"]


def _sent(kernel: Kernel, devices: int) -> float:
    """Return the bytes that one device sends in a run of a collective, which goes in a ring."""
    if kernel.written > kernel.read:  # a gather
        return kernel.written * (devices - 1) / devices
    sums = 2 if kernel.written == kernel.read else 1  # of a scatter, half of a sum
    return sums * kernel.read * (devices - 1) / devices
