"""What every recipe in configs/ needs, planned on this machine, as a table.

python scripts/table_plan.py [--part=compiled|recipes] [--compiled=FILE] [--output=docs/plan.md]
    [--json=FILE]

Each recipe is planned for as many devices as it says, one for those of CPUs, and for the device
that `python -m uniface_jax.plan` takes by default: by arithmetic, some ten minutes. The recipes of
COMPILED are planned for accelerators too, whose compilers have to be installed, as with --target of
`python -m uniface_jax.plan`: minutes each. What is in --compiled=FILE is taken from there, with the
commit that it was compiled at, and what is compiled is added to it, one by one. With --part the
page of --output keeps its other part as it is.
"""

import argparse
import json
import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

os.environ["JAX_PLATFORMS"] = "cpu"

from recipes import recipes  # the sibling script
from tqdm import tqdm

from uniface_jax.files.atomic import write_bytes
from uniface_jax.plan import memory, program, report, targets
from uniface_jax.plan.fleet import GB, Data, Device, Fleet
from uniface_jax.runtime.xla_flags import set_flags

DEVICE = Device(memory=80e9, reserve=0.1, tflops=156.0, utilisation=0.35, bandwidth=100e9)
PARTS = ("compiled", "recipes")  # of the page, in its order
COMPILED_PART, RECIPES_PART = (
    "## By the accelerators' own compilers",
    "## All recipes, by arithmetic",
)
HEADING = """# What the recipes need

Printed by `python scripts/table_plan.py`, on a machine without an accelerator. A single recipe, for
other devices: `python -m uniface_jax.plan --config=webface42m --devices=64 --device_memory=80`, and
with `--target=h100` beside what that card's own compiler says.

"""
PLANNED = ("uniface_jax", "configs")  # what a plan follows from
CLOSE = 0.1  # of the compiler's account
HEADS = (
    "recipe", "devices", "batch", "network", "head", "activations", "in all", "largest batch",
    "TFLOP", "MB sent", "images/s", "days",
)  # fmt: skip
COMPILED_HEADS = (
    "recipe", "devices", "arithmetic, GB", "compiler, GB", "ratio", "kernels", "GB moved",
    "MB sent", "seconds to compile", "commit",
)  # fmt: skip
# What compiles in minutes, as target, how many devices, and recipes; each stands for others that
# differ in the loss or the classes alone.
COMPILED = (
    (
        "h100", 8, (
            "casia:uce", "demo", "demo:vit", "glint360k", "laptop", "ms1mv3:mbf", "ms1mv3:r50",
            "webface42m:vit_b_8gpu", "webface42m:vit_t_8gpu", "webface4m:partial_fc",
            "webface4m:uce_mb_r",
        ),
    ),
    ("h100", 4, ("ms1mv2:arcface_k3",)),
    ("v5e:4x4", 16, ("demo", "demo:vit", "ms1mv3:mbf", "ms1mv3:r50")),
)  # fmt: skip


def plans() -> dict[str, report.RunPlan]:
    """Return the plan of each recipe by its name."""
    found, known = {}, dict[str, int]()
    for name, (facts, config) in (bar := tqdm(recipes().items(), unit="recipe")):
        bar.set_description(name)
        devices = facts.hardware.devices if "GPU" in facts.hardware.kind else 1
        data = Data(facts.data.images, facts.data.identities, "as the recipe says")
        recipe = program.planned(config, data.images, data.classes)
        network = memory.probe_network(recipe, devices, known=known)
        found[name] = report.make_plan(config, data, Fleet(devices, DEVICE), network=network)
    return found


def commit() -> str:
    """Return the last commit that changed what is planned, with a + where files differ from it."""

    def git(*words: str) -> str:
        found = subprocess.run(["git", *words, "--", *PLANNED], capture_output=True, check=True)
        return found.stdout.decode().strip()

    changed = "+" if git("status", "--porcelain") else ""
    return git("log", "-1", "--format=%h") + changed


def compiled(kept: Path | None) -> dict[str, Any]:
    """Return what compilers say of COMPILED, by target, devices and recipe.

    What is in the file `kept` is taken as it is, and each that is compiled is added to it.
    """
    known = json.loads(kept.read_text()) if kept and kept.exists() else {}
    by_name, found, at = recipes(), {}, commit()
    wanted = [(kind, count, name) for kind, count, names in COMPILED for name in names]
    for kind, count, name in (bar := tqdm(wanted, unit="program")):
        bar.set_description(f"{name} on {kind}")
        key = f"{kind} {count} {name}"
        if key not in known:
            facts, config = by_name[name]
            target = targets.parse(kind, count)
            card = target.card
            device = Device(card.memory, 0.1, target.tflops(config.model.dtype), 0.35, card.link)
            data = Data(facts.data.images, facts.data.identities, "as the recipe says")
            plan = report.make_plan(config, data, Fleet(count, device, target=target))
            known[key] = plan.as_json() | {"commit": at}
            if kept:
                write_bytes(kept, (json.dumps(known, indent=1) + "\n").encode())
        found[key] = known[key]
    return found


def compiled_row(key: str, plan: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the cells of one compiled program."""
    kind, count, name = key.split(" ")
    made = plan.get("on_target")
    if made is None:
        return (name, f"{count} of {kind}", *[""] * 6, plan["notes"][0], plan["commit"])
    predicted, total = plan["compiled"]["predicted"], plan["compiled"]["total"]
    sent = sum(one["bytes"] for one in made["collectives"])
    digits = 2 if total > GB else 3
    return (
        name, f"{count} of {kind}", f"{predicted / GB:.{digits}f}", f"{total / GB:.{digits}f}",
        f"{predicted / total:.2f}", f"{made['kernels']:,}", f"{made['bytes'] / GB:.3g}",
        f"{sent / 1e6:,.0f}", f"{made['compile_seconds']:.0f}", plan["commit"],
    )  # fmt: skip


def verdict(programs: Mapping[str, Any]) -> str:
    """Return in words of how many programs the arithmetic is within CLOSE, and of which not."""
    ratios = dict[str, float]()
    for key, plan in programs.items():
        kind, _, name = key.split(" ")
        if one := plan.get("compiled"):
            ratio = one["predicted"] / one["total"]
            ratios[f"`{name}` on {kind} ({ratio:.2f})"] = ratio
    others = [name for name, ratio in ratios.items() if abs(ratio - 1) > CLOSE]
    close = f"{len(ratios) - len(others)} of {len(ratios)}"
    said = f"within {CLOSE:.0%} of the compiler's account for {close}"
    return f"{said}; not for {', '.join(others)}" if others else said


def row(name: str, plan: report.RunPlan) -> tuple[str, ...]:
    """Return the cells of one recipe."""
    needs = plan.needs
    head = needs.prototypes + needs.prototype_momentum
    head += needs.prototype_gradients + needs.head_tiles
    gigabytes = [needs.network + needs.network_momentum, head, needs.activations, needs.total]
    return (
        name, str(plan.devices), str(plan.batch_size),
        *(f"{value / GB:.2f}" for value in gigabytes),
        f"{plan.largest.batch:,}", f"{plan.flops / 1e12:.3g}", f"{plan.sent / 1e6:,.0f}",
        f"{plan.images_per_second:,.0f}", f"{plan.days:.2g}",
    )  # fmt: skip


def table(heads: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """Return a table in Markdown, numbers to the right."""
    lines = [heads, ("---", *("---:",) * (len(heads) - 1)), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def compiled_part(programs: Mapping[str, Any]) -> str:
    """Return the part of docs/plan.md about programs."""
    return f"""{COMPILED_PART}

Memory of a device within a step, as the plan's arithmetic has it and by the account of XLA's
compiler for that accelerator (`--target`), of programs that compile within minutes; each stands for
the recipes that differ from it in the loss or the classes alone, and no others were compiled.
Kernels and the gigabytes that they read and write, and megabytes given to collectives, are a
step's, on each device. Seconds were on two cores that others used as well. The commit is the last
that changed what is planned, when the row was printed.

{table(COMPILED_HEADS, [compiled_row(*item) for item in programs.items()])}

The arithmetic is {verdict(programs)}.

It follows each array through the traced step (`plan/liveness.py`), and needs no compiler. On a TPU
arrays are padded to tiles, and share slots that are not divided; what fits on the chip and lives
shortest is in no memory. Small programs, the demo's, are all on the chip: the megabytes of their
account are tables of kernels' results, with the gaps between them counted twice,
which the account of a large program lets be taken out.

"""


def recipes_part(found: Mapping[str, report.RunPlan], at: str) -> str:
    """Return the part of docs/plan.md about all recipes; at: the commit they were planned at."""
    return f"""{RECIPES_PART}

The device is an A100 by its data sheet, 80 GB (a tenth left free) and 156 TFLOP/s in TF32, of which
{DEVICE.utilisation:.0%} are assumed to be reached, and 100 GB/s to other devices, none of it hidden
behind the computation. **Images/s and days follow from these assumptions and were measured
nowhere**; memory is the CPU compiler's account, which knows nothing of cuDNN's workspaces and
widens bfloat16. The demo's tiny network would never come near: it is bound by memory and by the
input.

GB on each device: the network's weights with their momentum, the head (prototypes, momentum,
gradients, the tiles in work), what the network needs within a step. "Largest batch" is over all
devices, with the same number of micro-batches. TFLOP and MB sent: a step, on each device. Printed
at {at}, the last commit that changed what is planned.

{table(HEADS, [row(*item) for item in found.items()])}
"""


def kept_part(page: Path | None, part: str) -> str:
    """Return a part of the page as it stands in a file."""
    if page is None or not page.exists():
        raise SystemExit("--part: the other part is taken from --output, which is not there")
    begins = f"^(?={COMPILED_PART}|{RECIPES_PART})"
    parts = re.split(begins, page.read_text(), flags=re.MULTILINE)[1:]
    return dict(zip(PARTS, parts, strict=True))[part]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, help="a file for the page, docs/plan.md")
    parser.add_argument("--json", type=Path, help="a file for all figures")
    parser.add_argument("--part", choices=PARTS, help="print this one anew, not the other")
    parser.add_argument(
        "--compiled", type=Path, help="a file of compiled programs, kept and added to"
    )
    args = parser.parse_args()
    set_flags()  # as a run has them
    records: dict[str, Any] = {}
    if args.part == "recipes":
        first = kept_part(args.output, "compiled")
    else:
        records |= (programs := compiled(args.compiled))
        first = compiled_part(programs)
    if args.part == "compiled":
        second = kept_part(args.output, "recipes")
    else:
        at, found = commit(), plans()
        records |= {name: plan.as_json() for name, plan in found.items()}
        second = recipes_part(found, at)
    text = HEADING + first + second
    if args.output:
        write_bytes(args.output, text.encode())
    if args.json:
        write_bytes(args.json, (json.dumps(records, indent=1) + "\n").encode())
    print(text)


if __name__ == "__main__":
    main()
