"""Command line: writes a trained network as ONNX, or checks an ONNX file as the MFR server would.

python -m uniface_jax.export --workdir=runs/demo --output=model.onnx [--opset=11] [--nomirror]
    [--zip] [--report=export.json]
python -m uniface_jax.export --check=model.onnx [--track=cfat] [--report=check.json]

What was written is printed as JSON. A check prints every rule, and ends with status 1 where one
failed.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
from absl import flags

from uniface_jax import cli
from uniface_jax.errors import UserError
from uniface_jax.exporting import submission
from uniface_jax.exporting.demo_faces import unseen_faces
from uniface_jax.exporting.jaxpr_to_onnx import DEFAULT_OPSET, OPSETS
from uniface_jax.exporting.verify import Exported, export

EXIT_RULE_FAILED = 1

_WORKDIR = flags.DEFINE_string("workdir", "runs/demo", "the run whose network is written")
_OUTPUT = flags.DEFINE_string("output", "model.onnx", "the ONNX file to write")
_OPSET = flags.DEFINE_integer(
    "opset", DEFAULT_OPSET, "ONNX's; 11 loads in the MFR server", OPSETS[0], OPSETS[-1]
)
_MIRROR = flags.DEFINE_boolean("mirror", True, "add the features of the mirrored images")
_ZIP = flags.DEFINE_boolean("zip", False, "also write the MFR submission, model.zip, beside it")
_CHECK = flags.DEFINE_string("check", None, "an .onnx, or a .zip with one inside, to check instead")
_TRACK = flags.DEFINE_enum("track", "cfat", list(submission.TRACKS), "whose limits --check applies")
_REPORT = flags.DEFINE_string("report", None, "a JSON file for the result")


def main(argv: list[str]) -> int:
    """Exports or checks; the status to exit with."""
    cli.positional(argv)
    if _CHECK.value:
        findings = _check(Path(_CHECK.value))
        for finding in findings:
            verdict = {True: "passed", False: "FAILED", None: "  note"}[finding.passed]
            print(f"{verdict}  {finding.rule}: {finding.found} (allowed: {finding.allowed})")
        passed = all(finding.passed is not False for finding in findings)
        _write_report({"passed": passed, "rules": [asdict(finding) for finding in findings]})
        return 0 if passed else EXIT_RULE_FAILED

    output = Path(_OUTPUT.value)
    result = asdict(_export_run(Path(_WORKDIR.value), output))
    if _ZIP.value:
        archive = output.with_name("model.zip")
        submission.pack(output, archive)
        result["archive"] = str(archive)
    print(json.dumps(result, indent=2))
    _write_report(result)
    return 0


def _check(path: Path) -> list[submission.Finding]:
    """All rules; a note in place of the one that needs the demo's faces where these are missing."""
    try:
        faces = unseen_faces()
    except UserError as e:
        note = submission.Finding(
            submission.RECOGNITION, None, f"not measured: {e}", submission.RECOGNITION_ALLOWED
        )
        return [*submission.check(path, _TRACK.value), note]
    return submission.check(path, _TRACK.value, faces)


def _export_run(workdir: Path, output: Path) -> Exported:
    # Not at the top: a check needs no checkpoint library.
    from uniface_jax.inference import load_network

    network, variables, info = load_network(workdir)
    metadata = {
        "uniface_jax.version": version("uniface_jax"),
        "uniface_jax.mirror": str(int(_MIRROR.value)),
        "uniface_jax.step": str(info["step"]),
        "uniface_jax.digest": str(info["digest"]),
    }

    def features(images: jax.Array) -> jax.Array:
        return network.apply(variables, images, train=False)  # type: ignore[return-value]

    return export(features, output, opset=_OPSET.value, mirror=_MIRROR.value, metadata=metadata)


def _write_report(result: Mapping[str, Any]) -> None:
    if _REPORT.value:
        path = Path(_REPORT.value)
        temporary = path.with_name(f".{path.name}.tmp")
        temporary.write_text(json.dumps(result, indent=2) + "\n")
        temporary.replace(path)


if __name__ == "__main__":
    cli.run(main)
