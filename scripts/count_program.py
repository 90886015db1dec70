r"""Count the kernels of a training step and the bytes they move, compiled for an accelerator.

    python scripts/count_program.py --target=h100 --config=casia:uce --config.batch_size=256 \
        --config.micro_batches=1 --config.model.dtype=bfloat16

The accelerator need not be there, only XLA's compiler for it (uniface_jax/plan/targets.py). Bytes
are those of one device's step, by kind of kernel (uniface_jax/plan/kernels.py), and what they take
at the rate of the device's memory by its data sheet; products are counted as arithmetic beside it.
These counts do not drift as seconds do. --save_text keeps the program's text.
"""

import gzip
import json
import sys
import time
from pathlib import Path
from typing import Any

from absl import flags

from uniface_jax import cli
from uniface_jax.cli import recipes

_CONFIG = recipes.define("NAME[:VARIANT] of a recipe, or PATH.py[:VARIANT]; default: demo")
_TARGET = flags.DEFINE_string("target", "h100", "accelerator, as for uniface plan")
_DEVICES = flags.DEFINE_integer("devices", 1, "GPUs of all hosts", lower_bound=1)
_IMAGES = flags.DEFINE_integer("images", 490_623, "of the training set", lower_bound=1)
_CLASSES = flags.DEFINE_integer("classes", 10_572, "of the training set", lower_bound=2)
_JSON = flags.DEFINE_string("json", None, "a file for the counts as JSON")
_TEXT = flags.DEFINE_string("save_text", None, "a file for the program's text, gzipped")


def main(argv: list[str]) -> None:
    """Compile the step, count, and print the table."""
    cli.positional(argv)
    from uniface_jax.config.overrides import resolved

    config = resolved(_CONFIG.value, recipes.named_keys(sys.argv))
    import jax

    from uniface_jax import config as configs
    from uniface_jax.plan import kernels, program, targets, work

    jax.config.update("jax_platforms", "cpu")
    target = targets.parse(_TARGET.value, _DEVICES.value)
    config = configs.completed(config.to_dict())
    configs.check(config, target.devices)
    recipe = program.planned(config, _IMAGES.value, _CLASSES.value)
    done = work.count(program.trace(recipe, target.devices), target.devices)
    began = time.monotonic()
    compiled = program.compiled(recipe, targets.devices_of(target), options=target.options)
    text = compiled.as_text() or ""
    if _TEXT.value:
        Path(_TEXT.value).write_bytes(gzip.compress(text.encode()))
    found = kernels.kernels(text)
    report: dict[str, Any] = {
        "target": target.name,
        "devices": target.devices,
        "network": config.model.name,
        "batch_size": config.batch_size,
        "classes": _CLASSES.value,
        "compile_seconds": time.monotonic() - began,
        "flops": done.flops,
        "memory": program.memory_of(compiled).total,
        "kinds": {kind: total._asdict() for kind, total in kernels.by_kind(found).items()},
        "kernels": sum(kernel.times for kernel in found),
        "bytes": sum(kernel.bytes for kernel in found),
    }
    if _JSON.value:
        Path(_JSON.value).write_text(json.dumps(report, indent=2) + "\n")
    print(table(report, target.card.bandwidth, target.card.tflops))


def table(report: dict[str, Any], bandwidth: float, tflops: float) -> str:
    """Return the counts as text, with the milliseconds of bytes and of FLOPs at full rates."""
    rows = report["kinds"] | {"all": {"kernels": report["kernels"], "bytes": report["bytes"]}}
    return "\n".join(
        [
            f"{report['network']}, batch {report['batch_size']}, {report['classes']:,} classes on "
            f"{report['devices']} of {report['target']}: compiled in "
            f"{report['compile_seconds']:.0f} s, {report['memory'] / 1e9:.2f} GB of memory",
            f"{'kind':30}{'kernels':>9}{'GB':>9}{'ms at full rate':>17}",
            *(
                f"{kind:30}{row['kernels']:9,}{row['bytes'] / 1e9:9.2f}"
                f"{1e3 * row['bytes'] / bandwidth:17.2f}"
                for kind, row in rows.items()
            ),
            f"{report['flops'] / 1e12:.3f} TFLOP: {report['flops'] / tflops / 1e9:.2f} ms at "
            f"{tflops:g} TFLOP/s",
        ]
    )


if __name__ == "__main__":
    cli.run(main, recipes.prepare)
