"""Model card beside every export: what the network is, was trained on, and was measured at.

A card is made from the files of a workdir, which may be old, foreign or damaged: whatever is not
there, or not readable, is "unknown" in the card. It holds no time and no path of this machine, so
that the same workdir and the same file give the same card.
"""

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from uniface_jax import __version__
from uniface_jax.data.formats.image_size import IMAGE_SIZE
from uniface_jax.data.sources.known_sets import KNOWN_SETS
from uniface_jax.errors import UserError
from uniface_jax.evaluate.protocols import PROTOCOLS
from uniface_jax.files.atomic import write_bytes
from uniface_jax.files.bounded_json import parse_json, read_json
from uniface_jax.files.reading import open_regular
from uniface_jax.losses import LOSSES

UNKNOWN = "unknown"
DEFAULT_RECIPE = "demo"  # what a command line without --config trains
PATH_KEYS = ("data.train", "eval.data", "finetune", "profile")  # of the config
WEIGHTS = ("safetensors", "pth")  # the formats of weights alone
CHANNELS_FIRST = ("onnx", *WEIGHTS)
CHUNK_BYTES = 1 << 20

INPUT_SCALE = "(x - 127.5) / 127.5"
ALIGNMENT = "five landmarks moved to the 112x112 template of ArcFace (python -m uniface_jax.align)"
LICENSE = (
    "The MIT license of uniface_jax covers the code, not these weights. Which terms the weights "
    "carry depends on the data set that they were trained on; whoever passes them on has to say."
)
RESPONSIBLE_USE = (
    "For research and for learning how face recognition is trained and measured.",
    "Not for identifying people who did not agree to it, not for surveillance, and not for "
    "decisions about people. A similarity is no proof of identity.",
    "Error rates differ between groups of people, and this card says nothing of them unless the "
    "protocol mfr is among its measurements. Measure on the people that you mean.",
    "Features identify a person as the photograph does: protect and delete them alike.",
)


@dataclass(frozen=True)
class Artifact:
    """A file (or a SavedModel's folder) that was written from a network.

    format: as --format has it. features: D, their length. mirror: whether the file adds the
    features of the mirrored images. parameters: how many the network has, batch norm's statistics
    apart. template: whether the landmarks of the alignment's template are baked in. weights: "raw",
    or "ema". quantized: "int8", "float16", or "" for float32.
    """

    path: Path
    format: str
    features: int
    mirror: bool
    parameters: int
    template: bool = False
    weights: str = "raw"
    quantized: str = ""


@dataclass(frozen=True)
class Origin:
    """A network's origin: the workdir, and what its checkpoint says.

    step: how many were origin. digest: SHA-256 of the variables. run: the checkpoint's record,
    with `config`, JSON in a string, and `data`.
    """

    workdir: Path
    step: int
    digest: str
    run: Mapping[str, Any]


OF_FLOAT32 = "what is measured below is of its float32"
MEAN = {"weights": "their mean over the steps (optim.ema), not those of the last step"}
LANDMARKS = {"landmarks": "those of the alignment's template for all images, baked in"}


def write_card(artifact: Artifact, origin: Origin) -> Path:
    """Write NAME.card.json and NAME.card.md beside the export NAME; return the second's path."""
    card = model_card(artifact, origin)
    text = json.dumps(card, indent=1) + "\n"
    write_bytes(artifact.path.with_name(f"{artifact.path.name}.card.json"), text.encode())
    path = artifact.path.with_name(f"{artifact.path.name}.card.md")
    write_bytes(path, markdown(card).encode(errors="replace"))
    return path


def model_card(artifact: Artifact, origin: Origin) -> dict[str, Any]:
    """Return the card of an export, ready for JSON; what is not known is UNKNOWN.

    Raises OSError where the exported file itself cannot be read.
    """
    config = _config(origin.run)
    record = _read(origin.workdir / "run.json")
    found = _read(origin.workdir / "import.json")
    return {
        "file": _file(artifact),
        "input": _input(artifact.format) | (LANDMARKS if artifact.template else {}),
        "output": {
            "features": artifact.features,
            "normalized": False,
            "mirror_sum": _mirror(artifact),
            "compare": "by the cosine",
        },
        "network": {
            "name": _at(config, "model", "name"),
            "settings": _set(_at(config, "model")),
            "parameters": artifact.parameters,
            "sha256": origin.digest,
            **(MEAN if artifact.weights == "ema" else {}),
        },
        "training": _training(config, record, origin),
        "imported": _imported(found) if found else None,
        "validation": _validation(origin.workdir / "metrics.jsonl", origin.step),
        "evaluation": _evaluation(origin.workdir / "evaluation" / "metrics.json", origin.digest),
        "license": LICENSE,
        "responsible_use": list(RESPONSIBLE_USE),
        "config": _without_folders(config) if config else UNKNOWN,
    }


def _file(artifact: Artifact) -> dict[str, Any]:
    folder = artifact.path.is_dir()
    files = sorted(p for p in artifact.path.rglob("*") if p.is_file()) if folder else []
    files = files or [artifact.path]
    digest = hashlib.sha256()
    for file in files:
        if folder:
            digest.update(file.relative_to(artifact.path).as_posix().encode() + b"\0")
        with open_regular(file) as stream:
            while chunk := stream.read(CHUNK_BYTES):
                digest.update(chunk)
    return {
        "name": artifact.path.name,
        "format": artifact.format,
        "bytes": sum(file.stat().st_size for file in files),
        "sha256": digest.hexdigest(),
        "written_by": f"uniface_jax {__version__}",
        **({"quantized": f"{artifact.quantized}; {OF_FLOAT32}"} if artifact.quantized else {}),
    }


def _input(name: str) -> dict[str, Any]:
    sides = [IMAGE_SIZE, IMAGE_SIZE]
    return {
        "shape": ["batch", 3, *sides] if name in CHANNELS_FIRST else ["batch", *sides, 3],
        "type": "float32",
        "color": "RGB",
        "scale": f"{INPUT_SCALE} of pixels x in 0..255",
        "alignment": ALIGNMENT,
    }


def _mirror(artifact: Artifact) -> str:
    if artifact.format in WEIGHTS:
        return "not in the file, which holds weights alone: add f(mirrored x) to f(x)"
    return "in the file: f(x) + f(mirrored x)" if artifact.mirror else "not in the file"


def _training(config: Any, record: Any, origin: Origin) -> dict[str, Any]:
    """Return what the network was trained on, by which recipe, how long and with what."""
    data = _at(origin.run, "data")
    classes = _first(_at(record, "data", "classes"), _at(data, "num_classes"))
    images = _first(_at(record, "data", "images"), _at(data, "num_examples"))
    return {
        "data": _names(_at(config, "data", "train")),
        "images": images or UNKNOWN,  # 0: an imported network's were never counted
        "classes": classes or UNKNOWN,
        "known_set": _known_set(images, classes),
        "recipe": _recipe(_at(record, "command")),
        "loss": _loss(_at(config, "loss")),
        "batch_size": _at(config, "batch_size"),
        "sampling_rate": _at(config, "head", "sampling_rate"),
        "seed": _at(config, "seed"),
        "steps": origin.step,
        "finetuned_from": _names(_at(config, "finetune")) or None,
        "commit": _at(record, "git_commit") or UNKNOWN,
        "versions": _at(record, "versions"),
        "devices": _at(record, "devices"),
    }


def _known_set(images: Any, classes: Any) -> str | None:
    """Return the title of the field's data set that has just these numbers, and who made it."""
    for known in KNOWN_SETS.values():
        if (images, classes) == (known.images, known.identities):
            return f"{known.title}, by these numbers; {known.citation} Its terms: {known.place}"
    return None


def _loss(given: Any) -> dict[str, Any] | str:
    """Return a loss's name and hyperparameters, its own defaults where the config leaves them."""
    values = _set(given)
    if not isinstance(values, dict):
        return UNKNOWN
    name = values.get("name")
    defaults = LOSSES.entry(name).defaults if isinstance(name, str) and name in LOSSES else {}
    return {"name": name, **defaults, **values}


def _imported(found: Any) -> dict[str, Any]:
    """Return which foreign file the weights came from."""
    source = _at(found, "source")
    return {
        "source": Path(source).name if isinstance(source, str) else UNKNOWN,
        "sha256": _at(found, "sha256"),
        "family": _at(found, "family"),
        "note": "The weights were trained elsewhere, by whoever made this file.",
    }


def _validation(path: Path, step: int) -> dict[str, Any] | str:
    """Return the last validation in metrics.jsonl at or before `step`."""
    last: dict[str, Any] | str = UNKNOWN
    try:
        with io.TextIOWrapper(open_regular(path), "utf-8", "replace") as lines:
            for line in lines:
                row = _parsed(line)
                metrics = {key: row[key] for key in row if str(key).startswith("eval/")}
                at = row.get("step")
                if metrics and isinstance(at, int) and at <= step:
                    last = {"step": at, **{k.removeprefix("eval/"): metrics[k] for k in metrics}}
    except OSError:
        return UNKNOWN
    return last


def _evaluation(path: Path, digest: str) -> dict[str, Any] | str:
    """Return the table's cells of an evaluation of this very network, by protocol and set."""
    found = _read(path)
    if not found:
        return UNKNOWN
    if _at(found, "model", "sha256") != digest:
        return f"{UNKNOWN}: evaluation/metrics.json is of other weights"
    protocols = _at(found, "protocols")
    tables = {
        str(name): {str(key): _cells(name, metrics) for key, metrics in sets.items()}
        for name in (protocols if isinstance(protocols, Mapping) else {})
        if isinstance(sets := _at(protocols, name, "sets"), Mapping)
    }
    versions = _at(found, "versions")
    return {"model": _at(found, "model", "description"), "versions": versions, "protocols": tables}


def _cells(protocol: str, metrics: Any) -> dict[str, str] | str:
    try:
        return dict(PROTOCOLS[protocol].row(metrics))
    except (KeyError, TypeError, ValueError, IndexError, AttributeError):
        return UNKNOWN  # a protocol from elsewhere, or a file that somebody changed


def _recipe(command: Any) -> str:
    """Return the recipe that a command line names, without its folder: casia:uce_m."""
    if not isinstance(command, list):
        return UNKNOWN
    words = [str(word) for word in command]
    for word, following in zip(words, [*words[1:], ""], strict=True):
        name, equals, value = word.lstrip("-").partition("=")
        if word.startswith("-") and name == "config":
            file, colon, variant = (value if equals else following).partition(":")
            return Path(file).stem + colon + variant
    return DEFAULT_RECIPE


def _config(run: Mapping[str, Any]) -> Any:
    text = _at(run, "config")
    return _parsed(text) if isinstance(text, str) else {}


def _set(values: Any) -> dict[str, Any] | str:
    """Return the entries of a part of the config that are not left to their defaults."""
    if not isinstance(values, Mapping):
        return UNKNOWN
    return {str(key): value for key, value in values.items() if value is not None}


def _without_folders(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the config with the last parts of paths in the place of paths."""
    result: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            result[key] = _without_folders(value, f"{prefix}{key}.")
        else:
            result[key] = _names(value) if f"{prefix}{key}" in PATH_KEYS else value
    return result


def _names(paths: Any) -> str:
    """Return the last parts of comma-separated paths; names that are no paths stay as they are."""
    if not isinstance(paths, str):
        return UNKNOWN
    return ",".join(Path(path).name for path in paths.split(","))


def _at(tree: Any, *keys: str) -> Any:
    """Return tree[key]… through mappings, UNKNOWN where one of them is something else."""
    for key in keys:
        if not isinstance(tree, Mapping) or key not in tree:
            return UNKNOWN
        tree = tree[key]
    return tree


def _first(*values: Any) -> Any:
    return next((value for value in values if value != UNKNOWN), UNKNOWN)


def _read(path: Path) -> Any:
    """Return the JSON of a file of the workdir, {} where there is none that can be read."""
    try:
        return read_json(path, "")
    except UserError:
        return {}


def _parsed(text: str) -> dict[str, Any]:
    try:
        found = parse_json(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def markdown(card: Mapping[str, Any]) -> str:
    """Return the card as Markdown, all but the whole config."""
    parts = [f"# {card['file']['name']}", "A network for face recognition, by uniface_jax."]
    for title, key in (
        ("File", "file"),
        ("Input", "input"),
        ("Output", "output"),
        ("Network", "network"),
        ("Training", "training"),
        ("Imported weights", "imported"),
        ("Last validation while training", "validation"),
    ):
        if card[key] is not None:
            parts += [f"## {title}", _table(card[key])]
    parts += ["## Evaluation", *_evaluation_lines(card["evaluation"])]
    parts += ["## License", card["license"], "## Responsible use"]
    parts.append("\n".join(f"- {line}" for line in card["responsible_use"]))
    parts.append(f"The whole config is in {card['file']['name']}.card.json.")
    return "\n\n".join(parts) + "\n"


def _evaluation_lines(found: Mapping[str, Any] | str) -> Sequence[str]:
    if not isinstance(found, Mapping):
        return [found]
    lines = [f"Of: {_shown(found['model'])}."]
    for protocol, sets in found["protocols"].items():
        for name, cells in sets.items():
            lines += [f"### {protocol}: {name}", _table(cells)]
    return lines


def _table(values: Mapping[str, Any] | str) -> str:
    if not isinstance(values, Mapping):
        return values
    rows = [f"| {key.replace('_', ' ')} | {_shown(value)} |" for key, value in values.items()]
    return "\n".join(["| | |", "|---|---|", *rows])


def _shown(value: Any) -> str:
    """Return a value in one cell: no line break, and no bar that would end the cell."""
    if isinstance(value, Mapping):
        text = ", ".join(f"{key} {_shown(entry)}" for key, entry in value.items())
    elif isinstance(value, list):
        text = f"[{', '.join(map(_shown, value))}]"
    elif isinstance(value, bool) or value is None:
        text = {True: "yes", False: "no", None: "none"}[value]
    elif isinstance(value, int):
        text = f"{value:,}"
    else:
        text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return " ".join(text.replace("|", "\\|").split())
