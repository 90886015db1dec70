"""What every recipe in configs/ needs, planned on this machine, as a table.

python scripts/table_plan.py [--output docs/plan.md] [--json FILE]

Each recipe is planned for as many devices as it says, one for those of CPUs, and for the device
that `python -m uniface_jax.plan` takes by default. Some ten minutes; memory is predicted,
tests/plan holds such predictions against compiled programs.
"""

import argparse
import json
import os
from pathlib import Path

os.environ["JAX_PLATFORMS"] = "cpu"

from recipes import recipes  # the sibling script
from tqdm import tqdm

from uniface_jax.files.atomic import write_bytes
from uniface_jax.plan import memory, program, report
from uniface_jax.plan.fleet import GB, Data, Device, Fleet

DEVICE = Device(memory=80e9, reserve=0.1, tflops=156.0, utilisation=0.35, bandwidth=100e9)
HEADS = (
    "recipe", "devices", "batch", "network", "head", "activations", "in all", "largest batch",
    "TFLOP", "MB sent", "images/s", "days",
)  # fmt: skip


def plans() -> dict[str, report.RunPlan]:
    """Return the plan of each recipe by its name."""
    known: dict[str, int] = {}
    found = {}
    for name, (facts, config) in (bar := tqdm(recipes().items(), unit="recipe")):
        bar.set_description(name)
        devices = facts.hardware.devices if "GPU" in facts.hardware.kind else 1
        data = Data(facts.data.images, facts.data.identities, "as the recipe says")
        recipe = program.planned(config, data.images, data.classes)
        network = memory.probe_network(recipe, devices, known=known)
        fleet = Fleet(devices, DEVICE)
        found[name] = report.make_plan(config, data, fleet, network=network)
    return found


def page(found: dict[str, report.RunPlan]) -> str:
    """docs/plan.md."""
    rows = [HEADS, ("---", *("---:",) * (len(HEADS) - 1))]
    for name, plan in found.items():
        needs = plan.needs
        head = needs.prototypes + needs.prototype_momentum
        head += needs.prototype_gradients + needs.head_tiles
        gigabytes = [
            needs.network + needs.network_momentum, head, needs.activations, needs.total
        ]  # fmt: skip
        rows.append(
            (
                name, str(plan.devices), str(plan.batch_size),
                *(f"{value / GB:.2f}" for value in gigabytes),
                f"{plan.largest.batch:,}", f"{plan.flops / 1e12:.3g}",
                f"{plan.sent / 1e6:,.0f}", f"{plan.images_per_second:,.0f}", f"{plan.days:.2g}",
            )
        )  # fmt: skip
    table = "\n".join("| " + " | ".join(row) + " |" for row in rows)
    return f"""# What the recipes need

Printed by `python scripts/table_plan.py`, on a machine without an accelerator. A single recipe, for
other devices: `python -m uniface_jax.plan --config=webface42m --devices=64
--device_memory=80`, with `--verify` to hold the prediction against the compiled program.

The device is an A100 by its data sheet, 80 GB (a tenth left free) and 156 TFLOP/s in TF32, of which
{DEVICE.utilisation:.0%} are assumed to be reached, and 100 GB/s to other devices, none of it hidden
behind the computation. **Images/s and days follow from these assumptions and were measured
nowhere**; memory is the CPU compiler's account, which knows nothing of cuDNN's workspaces. The
demo's tiny network would never come near: it is bound by memory and by the input.

GB on each device: the network's weights with their momentum, the head (prototypes, momentum,
gradients, the tiles in work), what the network needs within a step. "Largest batch" is over all
devices, with the same number of micro-batches. TFLOP and MB sent: a step, on each device.

{table}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, help="a file for the page, docs/plan.md")
    parser.add_argument("--json", type=Path, help="a file for all figures")
    arguments = parser.parse_args()
    found = plans()
    text = page(found)
    if arguments.output:
        write_bytes(arguments.output, text.encode())
    if arguments.json:
        records = {name: plan.as_json() for name, plan in found.items()}
        write_bytes(arguments.json, (json.dumps(records, indent=1) + "\n").encode())
    print(text)


if __name__ == "__main__":
    main()
