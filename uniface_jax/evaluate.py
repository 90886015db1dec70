"""Command line: evaluates a model by a protocol; writes metrics.json and figures.

python -m uniface_jax.evaluate --model=runs/demo --protocol=verification --data=lfw.bin,pairs/
"""

import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from absl import flags

from uniface_jax import __version__, cli
from uniface_jax.data.files import write_bytes
from uniface_jax.errors import UserError
from uniface_jax.evaluation.embed import load_model
from uniface_jax.evaluation.protocols import PROTOCOLS, Options
from uniface_jax.evaluation.verification import FARS

_MODEL = flags.DEFINE_string("model", None, "A workdir of training, or an ONNX file.")
_PROTOCOL = flags.DEFINE_enum("protocol", "verification", list(PROTOCOLS), "What to compute.")
_DATA = flags.DEFINE_list("data", None, "Comma-separated: .bin files of pairs, folders of them.")
_OUTPUT = flags.DEFINE_string(
    "output",
    None,
    "Folder for metrics.json and figures; default: WORKDIR/evaluation or ./evaluation.",
)
_MIRROR = flags.DEFINE_bool(
    "mirror", None, "Add the features of the mirrored images; default: unless they are inside."
)
_INPUT_SCALE = flags.DEFINE_enum(
    "input_scale", "auto", ["auto", "unit", "raw"], "Pixels an ONNX file is fed: -1..1 or 0..255."
)
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 64, "Images embedded at a time.", lower_bound=1)
_FARS = flags.DEFINE_list("fars", [str(far) for far in FARS], "Targets of TAR at FAR.")

_PACKAGES = ("jax", "numpy", "onnxruntime")


def main(argv: list[str]) -> None:
    """Embeds, computes, writes; prints a table and where the files are."""
    cli.positional(argv)
    if not _MODEL.value or not _DATA.value:
        missing = "model" if not _MODEL.value else "data"
        raise UserError(f"--{missing} is missing; see --help")
    options = Options(_BATCH_SIZE.value, [_rate(text) for text in _FARS.value])
    model = load_model(_MODEL.value, _MIRROR.value, _INPUT_SCALE.value)
    print(f"{_MODEL.value}: {model.description}", flush=True)
    output = Path(_OUTPUT.value) if _OUTPUT.value else _default_output(Path(_MODEL.value))
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise UserError(f"--output: {output} cannot be made a folder ({e.strerror})") from e
    data = [Path(path) for path in _DATA.value]
    metrics = PROTOCOLS[_PROTOCOL.value](model, data, output, options)
    report = {
        "protocol": _PROTOCOL.value,
        "model": {
            "path": _MODEL.value,
            "name": model.name,
            "sha256": model.hash,
            "description": model.description,
        },
        "versions": {"uniface_jax": __version__, **{name: version(name) for name in _PACKAGES}},
        **metrics,
    }
    write_bytes(output / "metrics.json", (json.dumps(report, indent=1) + "\n").encode())
    print(_table(metrics["sets"]))
    print(f"metrics.json and figures: {output}")


def _default_output(model: Path) -> Path:
    if model.is_file():
        return Path("evaluation")
    from uniface_jax.checkpoint import locate  # not for ONNX files: it takes a second to import

    workdir, _ = locate(model)
    return workdir / "evaluation"


def _rate(text: str) -> float:
    try:
        rate = float(text)
    except ValueError:
        rate = -1.0
    if not 0 < rate <= 1:
        raise UserError(f"--fars: {text} is no rate; expected numbers in (0, 1]")
    return rate


def _table(sets: Mapping[str, Mapping[str, Any]]) -> str:
    """A line for each set; TAR in the strict reading, in brackets where the set is too small."""
    first = next(iter(sets.values()))
    heads = ["set", "pairs", "AUC", "10-fold accuracy"]
    heads += [f"TAR@FAR≤{entry['far']:g}" for entry in first["tar_at_far"]]
    rows = [heads]
    for name, found in sets.items():
        accuracy = found["accuracy"]
        tars = [
            ("{:.2%}" if entry["resolvable"] else "({:.2%})").format(entry["strict"]["tar"])
            for entry in found["tar_at_far"]
        ]
        rows.append(
            [
                name,
                str(found["pairs"]),
                f"{found['auc']:.5f}",
                f"{accuracy['mean']:.2%} ± {accuracy['std']:.2%}",
                *tars,
            ]
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    if "(" in "".join(lines[1:]):
        lines.append("(…): that FAR is below one of the set's different pairs")
    return "\n".join(lines)


if __name__ == "__main__":
    cli.run(main)
