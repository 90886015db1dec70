"""Rules by which the MFR-ongoing server (InsightFace, ICCV 2021) accepts an ONNX model.

Written from its published checker. A file is measured before it is read, and read before anything
of it runs; weights outside the file are never followed. What the server alone can measure, the
time on its GPU, is given here as information: the time on this machine's CPU. One rule is this
project's own: the network has to recognize people when it is fed as the server would feed it.
"""

import shutil
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from google.protobuf.message import DecodeError

from uniface_jax.errors import UserError
from uniface_jax.export.demo_faces import Faces, recognition_auc
from uniface_jax.export.tracks import TRACKS, Track
from uniface_jax.files.atomic import replacing
from uniface_jax.files.reading import open_regular, read_regular
from uniface_jax.inference.onnx_file import is_external, tensors
from uniface_jax.inference.probe import probe
from uniface_jax.models import IMAGE_SIZE

MEGABYTE = 1 << 20
MAX_MEGABYTES = 1024
MIN_NODES = 8
MIN_ELEMENT_BYTES = 4
MAX_OPSET, MAX_IR = 14, 7  # of onnxruntime 1.8
BATCH_IMAGES = 32
# Of the demo's people: untrained networks reach 0.86, SFace fed at the wrong scale 0.88, the demo's
# network over 0.98.
MIN_AUC = 0.95
AUC_TIE = 0.01  # a feeding that is better by more was the intended one
RECOGNITION = "recognizes people"
RECOGNITION_ALLOWED = f">= {MIN_AUC}, and not better at the other scale"


@dataclass(frozen=True)
class Finding:
    """One rule, what was found and what is allowed; `passed` is None for mere information."""

    rule: str
    passed: bool | None
    found: str
    allowed: str


def check(path: Path, track: str = "cfat", faces: Faces | None = None) -> list[Finding]:
    """Check all rules of the submission `path`, an .onnx, or a .zip with one inside.

    With `faces`, the rule that the network recognizes people is among them. The list ends early
    where a rule fails that the others need: size, archive, reading, running. Raises UserError for a
    missing file and a track that is not in TRACKS.
    """
    if track not in TRACKS:
        raise UserError(f"track={track!r}: allowed are {', '.join(TRACKS)}")
    if not path.is_file():
        raise UserError(f"check={path}: no such file; expected an .onnx or a .zip with one inside")
    data, findings = _read(path)
    if data is None:
        return findings
    try:
        model = onnx.load_from_string(data)
    except DecodeError as error:
        return [*findings, Finding("readable", False, _line(error), "an ONNX model")]
    outside = [tensor.name for tensor in tensors(model) if is_external(tensor)]
    found = f"{outside[0]!r} and {len(outside) - 1} more outside" if outside else "all inside"
    findings += [
        Finding("readable", True, f"{len(data)} bytes", "an ONNX model"),
        Finding("weights in the file", not outside, found, "all inside"),
        *_static(model),
    ]
    return findings if outside else findings + _dynamic(data, model, TRACKS[track], faces)


def pack(model: Path, archive: Path) -> None:
    """Write the submission: a .zip that holds `model` as model.onnx.

    Times and rights of the file do not go into it: the same model gives the same bytes.
    """
    with (
        open_regular(model) as source,
        replacing(archive) as temporary,
        zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as file,  # weights do not shrink
        file.open(zipfile.ZipInfo("model.onnx"), "w") as entry,
    ):
        shutil.copyfileobj(source, entry)


def feeds_raw_pixels(graph: onnx.GraphProto) -> bool:
    """Return True where the server feeds 0..255, and False where it feeds (x - 127.5) / 127.5.

    It infers that from names: raw when among the first eight nodes one's name starts with Sub or
    _minus and one's with Mul, _mul or Div; what the nodes compute does not matter to it.
    """
    names = [node.name for node in graph.node[:8]]
    return any(name.startswith(("Sub", "_minus")) for name in names) and any(
        name.startswith(("Mul", "_mul", "Div")) for name in names
    )


def _read(path: Path) -> tuple[bytes | None, list[Finding]]:
    """Read the model's bytes, None where a rule forbids it; sizes come before memory."""
    findings = []
    if path.suffix != ".zip":
        findings.append(_size(path.stat().st_size))
        limit = MAX_MEGABYTES * MEGABYTE
        return (read_regular(path, limit) if findings[0].passed else None), findings
    one = "exactly one .onnx in a readable .zip"
    try:
        with open_regular(path) as file, zipfile.ZipFile(file) as archive:
            models = [info for info in archive.infolist() if info.filename.endswith(".onnx")]
            found = ", ".join(repr(info.filename) for info in models[:3]) or "none"
            findings.append(Finding("archive", len(models) == 1, f"{len(models)}: {found}", one))
            if len(models) != 1:
                return None, findings
            findings.append(_size(models[0].file_size))  # reading stops at this declared size
            return (archive.read(models[0]) if findings[-1].passed else None), findings
    except Exception as error:  # damage, a password, …: zipfile raises a dozen unrelated types
        return None, [*findings, Finding("archive", False, _line(error), one)]


def _size(size: int) -> Finding:
    megabytes = size / MEGABYTE
    return Finding(
        "file size", megabytes <= MAX_MEGABYTES, f"{megabytes:.3f} MB", f"<= {MAX_MEGABYTES} MB"
    )


def _static(model: onnx.ModelProto) -> list[Finding]:
    """Check the rules that need nothing to run."""
    graph = model.graph
    opset = max((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), default=0)
    constants = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in constants]
    dims = list(inputs[0].type.tensor_type.shape.dim) if inputs else []
    shape = [d.dim_param or (d.dim_value if d.HasField("dim_value") else "?") for d in dims]
    element = inputs[0].type.tensor_type.elem_type if inputs else 0
    narrow = [(t.name, _itemsize(t.data_type)) for t in graph.initializer]
    narrow = [(name, size) for name, size in narrow if size < MIN_ELEMENT_BYTES]
    return [
        Finding("opset", 1 <= opset <= MAX_OPSET, str(opset), f"<= {MAX_OPSET}"),
        Finding("IR version", model.ir_version <= MAX_IR, str(model.ir_version), f"<= {MAX_IR}"),
        Finding("nodes", len(graph.node) >= MIN_NODES, str(len(graph.node)), f">= {MIN_NODES}"),
        Finding("inputs", len(inputs) == 1, str(len(inputs)), "1"),
        Finding("input type", element == onnx.TensorProto.FLOAT, _type(element), "FLOAT"),
        Finding("input rank", len(shape) == 4, f"{len(shape)}: {shape}", "4"),
        Finding("symbolic batch", bool(dims and dims[0].dim_param), str(shape[:1]), "a name"),
        Finding("colors", shape[1:2] == [3], str(shape[1:2]), "[3], RGB"),
        Finding("image size", shape[2:] == [IMAGE_SIZE] * 2, str(shape[2:]), "[112, 112]"),
        Finding("outputs", len(graph.output) == 1, str(len(graph.output)), "1"),
        Finding(
            "initializer width",
            not narrow,
            f"{narrow[0][0]!r}: {narrow[0][1]} bytes" if narrow else "none narrower",
            f">= {MIN_ELEMENT_BYTES} bytes an element",
        ),
        _input_scale(graph),
    ]


def _input_scale(graph: onnx.GraphProto) -> Finding:
    """Check the trap: node names, not what nodes do, decide on the scale of the pixels."""
    raw = feeds_raw_pixels(graph)
    # Between the input and the first weighted sum: what the graph does to the pixels themselves.
    reached = {value.name for value in graph.input} - {t.name for t in graph.initializer}
    before: set[str] = set()
    for node in graph.node:  # in topological order by the format
        if reached.intersection(node.input) and node.op_type not in ("Conv", "Gemm", "MatMul"):
            reached.update(node.output)
            before.add(node.op_type)
    own = "Sub" in before and bool(before & {"Mul", "Div"})
    fed = "raw 0..255 (by node names)" if raw else "(x - 127.5)/127.5"
    has = "normalizes its input itself" if own else "does not normalize its input"
    return Finding(
        "input scale", raw == own, f"{fed} to a graph that {has}", "one normalization in all"
    )


def _dynamic(
    data: bytes, model: onnx.ModelProto, track: Track, faces: Faces | None
) -> list[Finding]:
    """Check the rules about what comes out of the model, fed as the server would feed it."""
    raw = feeds_raw_pixels(model.graph)
    image = np.random.default_rng(0).integers(0, 256, (1, IMAGE_SIZE, IMAGE_SIZE, 3))
    pixels = _fed(image, raw)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # its complaints are findings here
    allowed = f"loads, and runs a batch of {BATCH_IMAGES}"
    constants = {tensor.name for tensor in model.graph.initializer}
    given = [value.name for value in model.graph.input if value.name not in constants]
    try:
        # In another process, within bounds: what does not end would not end here.
        probe(Path("the model"), data, given[0] if given else "", [pixels])
        session = onnxruntime.InferenceSession(data, options, ["CPUExecutionProvider"])
        name, output = session.get_inputs()[0].name, session.get_outputs()[0].name
        features = session.run([output], {name: np.repeat(pixels, BATCH_IMAGES, axis=0)})[0]
        milliseconds = _milliseconds(lambda: session.run([output], {name: pixels}))
    except Exception as error:  # onnxruntime's exceptions share no narrower base
        return [Finding("runs", False, _line(error), allowed)]
    if not (isinstance(features, np.ndarray) and features.dtype == np.float32):
        return [Finding("runs", False, f"output of {session.get_outputs()[0].type}", "float32")]
    findings = [
        Finding("runs", True, f"features {list(features.shape)}", allowed),
        Finding("output rank", features.ndim == 2, str(features.ndim), "2"),
        Finding(
            "feature dimension",
            features.ndim == 2 and features.shape[1] <= track.features,
            str(list(features.shape[1:])),
            f"<= {track.features}",
        ),
        Finding(
            "finite output",
            bool(np.isfinite(features).all()),
            f"{np.isfinite(features).mean():.0%} of {features.size} values",
            f"all, on {BATCH_IMAGES} copies of an image",
        ),
        Finding(
            "time an image",
            None,
            f"{milliseconds:.1f} ms on this machine's CPU",
            f"<= {track.milliseconds} ms on the server's GPU",
        ),
    ]
    if faces and features.ndim == 2 and np.isfinite(features).all():
        findings.append(_recognition(lambda x: session.run([output], {name: x})[0], raw, faces))
    return findings


def _fed(images: np.ndarray, raw: bool) -> np.ndarray:
    """Return images [B, 112, 112, 3] in 0..255 as the server feeds them: [B, 3, 112, 112]."""
    pixels = np.ascontiguousarray(images.transpose(0, 3, 1, 2), np.float32)
    return pixels if raw else (pixels - 127.5) / np.float32(127.5)


def _recognition(run: Callable[[np.ndarray], np.ndarray], raw: bool, faces: Faces) -> Finding:
    """Check that the network tells people apart at the server's scale as well as at the other."""

    def auc(at_raw: bool) -> float:
        starts = range(0, len(faces.images), BATCH_IMAGES)
        features = np.concatenate(
            [run(_fed(faces.images[i : i + BATCH_IMAGES], at_raw)) for i in starts]
        )
        try:
            return recognition_auc(features, faces.people)
        except UserError:  # features that are zero or not finite tell no one apart
            return 0.0

    try:
        fed, other = auc(raw), auc(not raw)
    except Exception as error:  # of onnxruntime
        return Finding(RECOGNITION, False, _line(error), RECOGNITION_ALLOWED)
    return Finding(
        RECOGNITION,
        fed >= MIN_AUC and fed >= other - AUC_TIE,
        f"AUC {fed:.4f} on {len(faces.people)} faces as the server feeds them, {other:.4f} at the "
        "other scale",
        RECOGNITION_ALLOWED,
    )


def _milliseconds(run: Callable[[], object], runs: int = 5) -> float:
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return float(np.median(times)) * 1e3


def _itemsize(data_type: int) -> int:
    """Return the bytes of an element; 0 for a type that is none."""
    try:
        return onnx.helper.tensor_dtype_to_np_dtype(data_type).itemsize
    except KeyError:
        return 0


def _type(data_type: int) -> str:
    known = data_type in onnx.TensorProto.DataType.values()
    return onnx.TensorProto.DataType.Name(data_type) if known else str(data_type)


def _line(error: Exception, most: int = 200) -> str:
    """Return an exception's message as one line; onnxruntime's can be pages."""
    return " ".join(str(error).split())[:most] or type(error).__name__
