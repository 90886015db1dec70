"""Command line: writes a trained network for use elsewhere, or checks an ONNX file as the server.

python -m uniface_jax.export --workdir=runs/demo --output=model.onnx [--opset=11] [--nomirror]
    [--zip] [--route=jax2tf] [--cross_check] [--report=export.json]
python -m uniface_jax.export --workdir=runs/demo --format=savedmodel|tflite|stablehlo
python -m uniface_jax.export --workdir=runs/demo --format=safetensors|pth [--with_head] [--cvlface]
python -m uniface_jax.export --workdir=runs/demo --quantize=int8 --calibration=DATASET
    [--data=lfw.bin [--protocol=verification]] [--report=int8.json]
python -m uniface_jax.export --model=float32.onnx --quantize=float16
python -m uniface_jax.export --check=model.onnx [--track=cfat] [--report=check.json]

What was written is printed as JSON, and a model card of it, FILE.card.md and FILE.card.json, lies
beside it. A check prints every rule of the MFR server, and ends with
status 1 where one failed. safetensors and pth hold the weights by the names of their PyTorch
implementation: UniFace's release for lresnet*, arcface_torch for iresnet*, vit_* and mbf*. A
quantized file is compared with float32: its size, its time, its features and, with --data, what a
protocol of evaluate measures of both on the same resamples.
"""

import importlib.util
import json
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
from absl import flags

from uniface_jax import __version__, cli, models
from uniface_jax.errors import UserError, extra
from uniface_jax.export.demo_faces import unseen_faces
from uniface_jax.export.formats import FORMATS, write_format
from uniface_jax.export.model_card import WEIGHTS, Artifact, Origin, write_card
from uniface_jax.export.onnx.opsets import DEFAULT_OPSET, INT8_OPSET, OPSETS
from uniface_jax.export.quantization import flags as quantization
from uniface_jax.export.tracks import TRACKS
from uniface_jax.export.verify import (
    TOLERANCE,
    Function,
    onnx_runner,
    relative,
    write_verified,
)
from uniface_jax.files.atomic import write_bytes
from uniface_jax.files.writing import expect_writable
from uniface_jax.inference.mirror import MIRROR_KEY
from uniface_jax.registry import import_parts

if TYPE_CHECKING:  # loaded only where ONNX is written or checked
    import onnx

    from uniface_jax.export.submission import Finding

EXIT_RULE_FAILED = 1
EVALUATION = "evaluation"  # of a report: long, and printed as tables

_WORKDIR = flags.DEFINE_string("workdir", None, "the run whose network is written")
_MODEL = flags.DEFINE_string(
    "model", None, "instead of a workdir, with --quantize: an ONNX file of float32"
)
_OUTPUT = flags.DEFINE_string(
    "output", None, "the file to write; default: WORKDIR/model.FORMAT, quantized model.int8.onnx"
)
_FORMAT = flags.DEFINE_enum("format", "onnx", ["onnx", *FORMATS, *WEIGHTS], "what to write")
_ROUTE = flags.DEFINE_enum(
    "route", "direct", ["direct", "jax2tf"], "to ONNX: our own, or by jax2tf, TFLite and tf2onnx"
)
_CROSS_CHECK = flags.DEFINE_bool(
    "cross_check", False, "compare both routes to ONNX on the demo's faces before writing"
)
flags.DEFINE_alias("cross-check", "cross_check")
_OPSET = flags.DEFINE_integer(
    "opset",
    None,
    f"ONNX's; default: {DEFAULT_OPSET}, which loads in the MFR server, by jax2tf and for int8 "
    f"{INT8_OPSET}",
    OPSETS[0],
    OPSETS[-1],
)
_MIRROR = flags.DEFINE_boolean("mirror", True, "add the features of the mirrored images")
_LANDMARKS = flags.DEFINE_enum(
    "landmarks",
    "data",
    ["data", "template"],
    "of a network that takes them: template bakes in those to which faces are aligned",
)
_WEIGHTS = flags.DEFINE_enum(
    "weights", "raw", ["raw", "ema"], "which: as they are, or the mean that config.optim.ema keeps"
)
_WITH_HEAD = flags.DEFINE_boolean("with_head", False, "also write the prototypes and the bias")
_CVLFACE = flags.DEFINE_boolean("cvlface", False, "name a ViT's weights as CVLface does")
_ZIP = flags.DEFINE_boolean("zip", False, "also write the MFR submission, model.zip, beside it")
_CHECK = flags.DEFINE_string("check", None, "an .onnx, or a .zip with one inside, to check instead")
_TRACK = flags.DEFINE_enum("track", "cfat", list(TRACKS), "whose limits --check applies")
_REPORT = flags.DEFINE_string("report", None, "a JSON file for the result")
_QUANTIZE = quantization.define()
_IMPORTS = cli.define_imports()


def main(argv: list[str]) -> int:
    """Export or check; return the status to exit with."""
    cli.positional(argv)
    if _REPORT.value:
        expect_writable(Path(_REPORT.value))
    if _CHECK.value:
        findings = _check(Path(_CHECK.value))
        passed = all(finding.passed is not False for finding in findings)
        _write_report({"passed": passed, "rules": [asdict(finding) for finding in findings]})
        for finding in findings:
            verdict = {True: "passed", False: "FAILED", None: "  note"}[finding.passed]
            cli.say(f"{verdict}  {finding.rule}: {finding.found} (allowed: {finding.allowed})")
        return 0 if passed else EXIT_RULE_FAILED

    lines: list[str] = []
    if _QUANTIZE.quantize.value:
        result, lines = _write_quantized()
    else:
        _QUANTIZE.expect_none()
        result = _write()
    _write_report(result)
    shown = {key: value for key, value in result.items() if key != EVALUATION}
    cli.say(*json.dumps(shown, indent=2).split("\n"), *lines)
    return 0


def _check(path: Path) -> "list[Finding]":
    """Check all rules; a note takes the place of the one whose faces are missing."""
    with extra("export"):
        from uniface_jax.export import submission

    try:
        faces = unseen_faces()
    except UserError as e:
        note = submission.Finding(
            submission.RECOGNITION, None, f"not measured: {e}", submission.RECOGNITION_ALLOWED
        )
        return [*submission.check(path, _TRACK.value), note]
    return submission.check(path, _TRACK.value, faces)


def _write() -> dict[str, Any]:
    """Write the network of the workdir as the flags say, and its model card."""
    if _FORMAT.value != "onnx":
        for flag in (_ZIP, _CROSS_CHECK, _ROUTE, _OPSET):
            if flag.present:
                raise UserError(f"--{flag.name}: only for --format=onnx, not {_FORMAT.value}")
    if _FORMAT.value not in WEIGHTS:
        for flag in (_WITH_HEAD, _CVLFACE):
            if flag.value:
                allowed = " or ".join(WEIGHTS)
                raise UserError(f"--{flag.name}: only for --format={allowed}, not {_FORMAT.value}")
    if _MODEL.value:
        raise UserError("--model: only with --quantize; what is exported is a --workdir")
    if not _WORKDIR.value:
        usage = cli.usage("--workdir=WORKDIR [--output=FILE] [FLAGS], or --check=MODEL.onnx")
        raise UserError(f"--workdir is missing; {usage}")
    _require_extra(_FORMAT.value)
    output = Path(_OUTPUT.value or _beside_checkpoints(_WORKDIR.value, f"model.{_FORMAT.value}"))
    expect_writable(output)
    found = _network(_WORKDIR.value)
    if _FORMAT.value in WEIGHTS:
        from uniface_jax.export.pytorch import Form, write_weights

        form = Form(_FORMAT.value, _CVLFACE.value, _WITH_HEAD.value)
        result = write_weights(
            found.network, found.variables, output, form, found.info, found.metadata
        )
    elif _FORMAT.value == "onnx":
        result = _write_onnx(found.features, output, found.metadata)
    else:
        result = asdict(write_format(found.features, output, _FORMAT.value, _MIRROR.value))
    return result | {"card": _write_card(found, output)}


def _write_quantized() -> tuple[dict[str, Any], list[str]]:
    """Write a network quantized; return the report and, where it is evaluated, tables as lines."""
    if _FORMAT.value != "onnx":
        raise UserError(f"--quantize: only for --format=onnx, not {_FORMAT.value}")
    if _ZIP.value:
        raise UserError(
            "--zip: the MFR server takes no initializer of less than 4 bytes an element, which a "
            f"file of --quantize={_QUANTIZE.quantize.value} has; submit the one of float32"
        )
    if bool(_MODEL.value) == bool(_WORKDIR.value):
        raise UserError("--quantize: give one of --workdir=WORKDIR and --model=FLOAT32.onnx")
    _require_extra("onnx")
    import_parts(_IMPORTS.value, "--imports")
    request = _QUANTIZE.request()
    if request.kind == "int8" and (_OPSET.value or INT8_OPSET) < INT8_OPSET:
        raise UserError(f"--opset={_OPSET.value}: int8 needs at least {INT8_OPSET}")
    from uniface_jax.export.quantization.run import quantize

    ending = f"{request.kind}.onnx"
    if _MODEL.value:
        given = Path(_MODEL.value)
        output = Path(_OUTPUT.value or given.with_suffix(f".{ending}"))
        expect_writable(output)
        return quantize(given, output, request)
    output = Path(_OUTPUT.value or _beside_checkpoints(_WORKDIR.value or "", f"model.{ending}"))
    expect_writable(output)
    found = _network(_WORKDIR.value or "")
    with tempfile.TemporaryDirectory(prefix="uniface_jax-float32-") as folder:
        given = Path(folder) / "float32.onnx"
        opset = INT8_OPSET if request.kind == "int8" else DEFAULT_OPSET
        exported = _write_onnx(found.features, given, found.metadata, opset)
        result, lines = quantize(given, output, request)
    written = {"differences": exported["differences"], "parameters": exported["parameters"]}
    card = {"card": _write_card(found, output, request.kind)}
    return result | {"float32": written} | card, lines


@dataclass(frozen=True)
class _Network:
    """A workdir's network and variables, facts of its checkpoint, and metadata for what is written.

    features: images -> features [B, D], its variables closed over.
    """

    network: models.Network
    variables: Any
    info: Mapping[str, Any]
    metadata: dict[str, str]
    features: Function


def _network(workdir: str) -> _Network:
    """Load the network of a workdir, or of one of its checkpoints, as the flags say."""
    # Not at the top: a check needs no checkpoint library.
    from uniface_jax.inference.network import load_network

    chosen = {} if _WEIGHTS.value == "raw" else {"weights": _WEIGHTS.value}
    network, variables, info = load_network(workdir, **chosen)
    network = _of_images_alone(network, workdir)
    metadata = {
        "uniface_jax.version": __version__,
        "uniface_jax.step": str(info["step"]),
        "uniface_jax.digest": str(info["digest"]),
        **{f"uniface_jax.{key}": value for key, value in chosen.items()},
    }
    if isinstance(network, models.KPRPE):
        metadata["uniface_jax.landmarks"] = network.landmarks
    features = partial(models.features, network, variables)
    return _Network(network, variables, info, metadata, features)


def _write_card(found: _Network, output: Path, quantized: str = "") -> str:
    """Write the model card of what was written of a network to `output`; return its path."""
    artifact = Artifact(
        path=output,
        format=_FORMAT.value,
        features=found.network.embedding_size,
        mirror=_MIRROR.value,
        template=isinstance(found.network, models.KPRPE) and _FORMAT.value not in WEIGHTS,
        parameters=sum(leaf.size for leaf in jax.tree.leaves(found.variables["params"])),
        weights=_WEIGHTS.value,
        quantized=quantized,
    )
    info = found.info
    return str(
        write_card(artifact, Origin(info["workdir"], info["step"], info["digest"], info["run"]))
    )


def _of_images_alone(network: models.Network, workdir: str) -> models.Network:
    """Return a network whose only input is images, as that of every file with a graph is.

    Raises UserError for one that takes landmarks, unless --landmarks=template; weights are written
    of any.
    """
    from uniface_jax.inference.network import with_template

    if _LANDMARKS.value == "template":
        return with_template(network, workdir)
    if models.takes_landmarks(network) and _FORMAT.value not in WEIGHTS:
        raise UserError(
            f"{workdir}: its network takes landmarks, and --format={_FORMAT.value} has images "
            "alone as input; --landmarks=template bakes in those to which faces are aligned"
        )
    return network


def _require_extra(written: str) -> None:
    """Refuse a format whose extra is not installed, before the checkpoint is read."""
    needs = {
        "onnx": ("export", "onnx"),
        "savedmodel": ("tensorflow", "tensorflow"),
        "tflite": ("tensorflow", "tensorflow"),
        "pth": ("torch", "torch"),
    }
    if written in needs:
        name, module = needs[written]
        with extra(name):
            if importlib.util.find_spec(module) is None:
                raise ModuleNotFoundError(f"no module {module}", name=module)


def _beside_checkpoints(workdir: str, name: str) -> Path:
    """Return WORKDIR/name; workdir: a workdir, or one of its checkpoints/STEP."""
    from uniface_jax.checkpoints.reading import locate

    return locate(workdir)[0] / name


def _write_onnx(
    features: Function, output: Path, metadata: dict[str, str], default_opset: int = DEFAULT_OPSET
) -> dict[str, Any]:
    with extra("export"):
        from uniface_jax.export import submission
        from uniface_jax.export.onnx.from_jaxpr import to_onnx

    mirror, opset = _MIRROR.value, _OPSET.value
    metadata[MIRROR_KEY] = str(int(mirror))
    routes = {"direct": (to_onnx, default_opset)}
    if _CROSS_CHECK.value or _ROUTE.value == "jax2tf":
        from uniface_jax.export.onnx import from_tflite as second

        routes["jax2tf"] = (second.to_onnx_by_tflite, second.DEFAULT_OPSET)
    write, default = routes.pop(_ROUTE.value)
    model = write(features, opset=opset or default, mirror=mirror, metadata=metadata)
    result: dict[str, Any] = {}
    if _CROSS_CHECK.value:
        ((write, default),) = routes.values()
        result["cross_check"] = _cross_check(model, write(features, opset=default, mirror=mirror))
    result |= asdict(write_verified(model, output, features, mirror))
    if _ZIP.value:
        archive = output.with_name("model.zip")
        submission.pack(output, archive)
        result["archive"] = str(archive)
    return result


def _cross_check(model: "onnx.ModelProto", other: "onnx.ModelProto") -> dict[str, Any]:
    """Compare a model with the other route's on the demo's faces; UserError if they differ."""
    faces = (unseen_faces().images.astype("float32") - 127.5) / 127.5
    found, expected = (onnx_runner(entry)(faces) for entry in (model, other))
    difference = relative(found, expected)
    if not difference <= TOLERANCE:
        raise UserError(
            f"cross_check: nothing written: the two routes to ONNX differ by {difference:.2g} "
            f"relative on {len(faces)} faces; allowed is {TOLERANCE:g}"
        )
    return {"faces": len(faces), "difference": difference, "nodes": len(other.graph.node)}


def _write_report(result: Mapping[str, Any]) -> None:
    if _REPORT.value:
        write_bytes(Path(_REPORT.value), (json.dumps(result, indent=2) + "\n").encode())


if __name__ == "__main__":
    cli.run(main)
