"""Command line: what a run needs, without the devices that it needs.

python -m uniface_jax.plan --config=configs/webface42m_r200.py --devices=64 --device_memory=80
    [--device_tflops=156] [--utilisation=0.35] [--bandwidth=100] [--verify] [--json=plan.json]

Any key of the config can be given as --config.KEY=VALUE. The defaults describe an A100: 80 GB, 156
TFLOP/s in TF32 by its data sheet. The size of the data set comes from the data set itself where it
is there, else from the recipe's docstring, or from --images and --classes.
"""

import ast
import json
import os
from pathlib import Path

from absl import flags
from ml_collections import config_flags
from tqdm import tqdm

from uniface_jax import cli
from uniface_jax.errors import UserError
from uniface_jax.train.flags import DEMO, prepare

_CONFIG = config_flags.DEFINE_config_file("config", None, f"the recipe; else {DEMO}")
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
_IMAGES = flags.DEFINE_integer("images", None, "of the training set", lower_bound=1)
_CLASSES = flags.DEFINE_integer("classes", None, "of the training set", lower_bound=2)
_VERIFY = flags.DEFINE_bool("verify", False, "also compile the whole step, which takes minutes")
_JSON = flags.DEFINE_string("json", None, "a file for the plan as JSON")


def main(argv: list[str]) -> None:
    """Plans, and prints."""
    cli.positional(argv)
    # Before JAX is imported: the devices of the plan are virtual, whatever this machine has.
    os.environ["JAX_PLATFORMS"] = "cpu"
    virtual = _DEVICES.value if _VERIFY.value else 1
    given = os.environ.get("XLA_FLAGS", "")  # of a flag that is there twice, XLA takes the last
    os.environ["XLA_FLAGS"] = f"{given} --xla_force_host_platform_device_count={virtual}"

    from uniface_jax import config as configs
    from uniface_jax.files.atomic import write_bytes
    from uniface_jax.plan import report

    recipe = Path(config_flags.get_config_filename(flags.FLAGS["config"]))
    device = report.Device(
        memory=_MEMORY.value * 1e9,
        reserve=_RESERVE.value,
        tflops=_TFLOPS.value,
        utilisation=_UTILISATION.value,
        bandwidth=_BANDWIDTH.value * 1e9,
    )
    data = _data(recipe)
    configs.check(_CONFIG.value, _DEVICES.value)
    with tqdm(desc="plan", bar_format="{desc} {elapsed}", leave=False) as bar:
        plan = report.make_plan(
            _CONFIG.value,
            data,
            _DEVICES.value,
            device,
            verify=_VERIFY.value,
            progress=lambda text: bar.set_description(f"plan: {text}"),
        )
    print(report.table(recipe.stem, plan))
    if _JSON.value:
        write_bytes(Path(_JSON.value), (json.dumps(plan.as_json(), indent=2) + "\n").encode())


def _data(recipe: Path):
    from uniface_jax.data.formats.tfrecord_info import read_dataset_info
    from uniface_jax.plan import report

    images, classes = _IMAGES.value, _CLASSES.value
    if images is not None and classes is not None:
        return report.Data(images, classes, "as given")
    if images is not None or classes is not None:
        raise UserError("--images and --classes: give both or neither")
    folder = _CONFIG.value.data.train
    if folder and Path(folder).is_dir():
        info = read_dataset_info(folder)
        return report.Data(info.num_examples, info.num_classes, str(folder))
    text = ast.get_docstring(ast.parse(recipe.read_text())) or ""
    return report.data_of_text(text, str(recipe))


if __name__ == "__main__":
    cli.run(main, prepare)
