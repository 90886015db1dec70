"""Command line: what a run needs, without the devices that it needs.

python -m uniface_jax.plan --config=webface42m --devices=64 --device_memory=80
    [--device_tflops=156] [--utilisation=0.35] [--bandwidth=100] [--verify] [--json=plan.json]
python -m uniface_jax.plan --config=laptop --config.data.train=aligned --here
python -m uniface_jax.plan --config=casia:uce --target=v5e:2x4

Any key of the config can be given as --config.KEY=VALUE; --print_config prints all of them. The
defaults describe an A100: 80 GB, 156 TFLOP/s in TF32 by its data sheet. --here plans for this
machine's own devices instead, with the memory that is free now, by compiling the step for them. The
size of the data set comes from the data set itself where it is there, else from what the recipe
says of it, or from --images and --classes.
"""

import json
import os
import sys
import time
from pathlib import Path

from absl import flags
from ml_collections import ConfigDict

from uniface_jax import cli
from uniface_jax.cli import recipes
from uniface_jax.errors import UserError
from uniface_jax.files.writing import expect_writable
from uniface_jax.plan import targets
from uniface_jax.plan.fleet import Data, Device, Fleet, heading

_CONFIG = recipes.define("NAME[:VARIANT] of a recipe, or PATH.py[:VARIANT]; default: demo")
_DEVICES = flags.DEFINE_integer("devices", 8, "devices of all hosts", lower_bound=1)
_MEMORY = flags.DEFINE_float("device_memory", 80.0, "GB (1e9 bytes) of a device", lower_bound=0.0)
_RESERVE = flags.DEFINE_float(
    "reserve", 0.1, "share of it left to drivers, workspaces and fragmentation", 0.0, 0.9
)
_TFLOPS = flags.DEFINE_float("device_tflops", 156.0, "TFLOP/s by the data sheet", lower_bound=1e-3)
_UTILISATION = flags.DEFINE_float(
    "utilisation", 0.35, "share of --device_tflops that a step reaches", 1e-3, 1.0
)
_BANDWIDTH = flags.DEFINE_float("bandwidth", 100.0, "GB/s a device sends to others", 1e-3)
_HERE = flags.DEFINE_bool(
    "here", False, "plan for this machine's own devices, as they are now, instead of those above"
)
_TARGET = flags.DEFINE_string(
    "target",
    None,
    "accelerator whose compiler is asked, as h100 (with --devices) or v5e:4x4: memory, kernels, "
    "bytes and collectives of the real program; takes minutes",
)
_IMAGES = flags.DEFINE_integer("images", None, "of the training set", lower_bound=1)
_CLASSES = flags.DEFINE_integer("classes", None, "of the training set", lower_bound=2)
_VERIFY = flags.DEFINE_bool("verify", False, "also compile the whole step, which takes minutes")
_JSON = flags.DEFINE_string("json", None, "a file for the plan as JSON")
_PRINT_CONFIG = recipes.define_print_config()


def main(argv: list[str]) -> None:
    """Plan the run, and print the forecast."""
    cli.positional(argv)
    from uniface_jax.config.overrides import resolved

    config, recipe = resolved(_CONFIG.value, recipes.named_keys(sys.argv)), recipes.located()
    if _PRINT_CONFIG.value:
        recipes.print_config(config)
        return
    if not _HERE.value:
        # Before JAX looks for devices: those of the plan are virtual, whatever this machine has.
        virtual = _DEVICES.value if _VERIFY.value else 1
        given = os.environ.get("XLA_FLAGS", "")  # of a flag that is there twice, XLA takes the last
        os.environ["XLA_FLAGS"] = f"{given} --xla_force_host_platform_device_count={virtual}"

    if _JSON.value:
        expect_writable(Path(_JSON.value))

    import jax

    from uniface_jax import config as configs

    if not _HERE.value:
        jax.config.update("jax_platforms", "cpu")
    config = configs.completed(config.to_dict())
    fleet = _fleet(config.model.dtype)
    configs.check(config, fleet.count)
    data = _data(recipe, config)
    cli.say(heading(recipe.name, config, data, fleet))
    # Loading these takes longer than all of the above.
    from uniface_jax.files.atomic import write_bytes
    from uniface_jax.plan import report

    plan = report.make_plan(config, data, fleet, verify=_VERIFY.value, progress=Progress())
    if _JSON.value:
        write_bytes(Path(_JSON.value), (json.dumps(plan.as_json(), indent=2) + "\n").encode())
    cli.say(*report.table(plan).split("\n"))


class Progress:
    """Says on standard error what a plan is at, and how long it has taken so far."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    def __call__(self, text: str) -> None:
        """Say that `text` begins."""
        print(f"plan: {time.monotonic() - self._began:4.0f} s  {text}", file=sys.stderr, flush=True)


def _fleet(dtype: str) -> Fleet:
    """Return the devices of the flags, or those of this machine; flags that are given count."""
    from uniface_jax.plan import here

    names = ("devices", "device_memory", "device_tflops", "bandwidth")
    given = {name: flags.FLAGS[name].present > 0 for name in names}
    count, memory, tflops = _DEVICES.value, _MEMORY.value * 1e9, _TFLOPS.value
    bandwidth, target = _BANDWIDTH.value * 1e9, None
    if _TARGET.value is not None:
        target = targets.parse(_TARGET.value, count)
        if _HERE.value:
            raise UserError(f"--target={target.name}: give it or --here, which plans for others")
        if given["devices"] and count != target.devices:
            raise UserError(
                f"--devices={count}: {target.name} has {target.devices}; leave --devices out"
            )
        count, card = target.devices, target.card
        memory = memory if given["device_memory"] else card.memory
        tflops = tflops if given["device_tflops"] else target.tflops(dtype)
        bandwidth = bandwidth if given["bandwidth"] else card.link
    if _HERE.value:
        found = here.measured()
        count = count if given["devices"] else found.devices
        memory = memory if given["device_memory"] else found.memory
        if found.tflops is not None and not given["device_tflops"]:
            tflops = found.tflops
    device = Device(
        memory=memory,
        reserve=_RESERVE.value,
        tflops=tflops,
        utilisation=_UTILISATION.value,
        bandwidth=bandwidth,
    )
    return Fleet(count, device, _HERE.value, target)


def _data(recipe: recipes.Located, config: ConfigDict) -> Data:
    """Return the size of the training set: as given, or as it is there, or as the recipe says."""
    from uniface_jax.config.facts import facts_of
    from uniface_jax.data.sources.opening import is_named
    from uniface_jax.train.training_set import epoch_length, make_order, open_training_set

    train = config.data.train
    images, classes = _IMAGES.value, _CLASSES.value
    if images is not None and classes is not None:
        return Data(images, classes, "as given")
    if images is not None or classes is not None:
        raise UserError("--images and --classes: give both or neither")
    if is_named(train):
        source = open_training_set(config)
        length = epoch_length(source, make_order(config, source))
        return Data(len(source), source.num_classes, train, length)
    module, unchanged = recipes.load(recipe)
    facts = facts_of(module, recipe.variant)
    if facts is None or train != unchanged.data.train:
        raise UserError(
            f"config.data.train={train}: not there, and the recipe does not say how large it is; "
            "give --images and --classes"
        )
    return Data(facts.data.images, facts.data.identities, "as the recipe says")


if __name__ == "__main__":
    cli.leave_at_interrupt()
    cli.run(main, recipes.prepare)
