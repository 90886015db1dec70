"""Command line: builds galleries of faces from features, searches and changes them.

python -m uniface_jax.gallery build FEATURES --output=GALLERY
python -m uniface_jax.gallery search GALLERY QUERY… [-k 5] [--far=1e-4 --calibration=metrics.json]
python -m uniface_jax.gallery add GALLERY FEATURES
python -m uniface_jax.gallery remove GALLERY --ids=3,17 | --names=a.jpg | --people=ann
python -m uniface_jax.gallery merge GALLERY [OTHER…]
python -m uniface_jax.gallery index GALLERY

FEATURES is a table that embed has written. A QUERY is such a table, or a photograph, for which
--model says the network. Answers are exact, and printed as JSON; --sheet=FILE.png draws them. With
a threshold, an answer below it is "unknown". merge takes in other galleries, and gives the room of
removed faces back. index makes --method=approximate possible, by FAISS, and measures its recall.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags

from uniface_jax import cli
from uniface_jax.data.formats.images import encode_png
from uniface_jax.errors import UserError
from uniface_jax.files.atomic import write_bytes
from uniface_jax.files.writing import expect_writable
from uniface_jax.gallery import thresholds
from uniface_jax.gallery.candidates import METHODS
from uniface_jax.gallery.rows import Row
from uniface_jax.gallery.sheet import Match, contact_sheet
from uniface_jax.gallery.store import Gallery
from uniface_jax.gallery.thresholds import Limit
from uniface_jax.inference.calibration import read_calibration
from uniface_jax.inference.feature_reading import FeatureTable, is_table, open_features

_OUTPUT = flags.DEFINE_string("output", None, "Of build: the folder of the new gallery.")
_K = flags.DEFINE_integer("k", 5, "Nearest faces of each query.", lower_bound=1)
_MODEL = flags.DEFINE_string(
    "model", None, "Of photographs that are asked about: the network of the gallery's features."
)
_ALIGN = flags.DEFINE_bool(
    "align", None, "Find the faces in photographs; default: as the gallery's features were made."
)
_MIRROR = flags.DEFINE_bool(
    "mirror", None, "Add the features of the mirrored images; default: unless they are inside."
)
_FAR = flags.DEFINE_float("far", None, "False accept rate of a comparison; needs --calibration.")
_FPIR = flags.DEFINE_float(
    "fpir", None, "Rate of searches that find someone for a face of nobody; needs --calibration."
)
_CALIBRATION = flags.DEFINE_string(
    "calibration", None, "The metrics.json of an evaluation of the gallery's model."
)
_MEASURED_ON = flags.DEFINE_string(
    "measured_on", None, "The evaluation's set that the threshold is taken from, if several."
)
_THRESHOLD = flags.DEFINE_float(
    "threshold", None, "Least cosine of an answer, instead of a rate.", -1.0, 1.0
)
_METHOD = flags.DEFINE_enum(
    "method",
    "int8",
    list(METHODS),
    "What search goes over: int8 and float32 are exact and answer the same.",
)
_SHEET = flags.DEFINE_string("sheet", None, "Of search: a PNG of queries and answers.")
_REPORT = flags.DEFINE_string("report", None, "Of search: a JSON file for what is printed.")
_IDS = flags.DEFINE_list("ids", [], "Of remove: ids of faces.")
_NAMES = flags.DEFINE_list("names", [], "Of remove: names of photographs.")
_PEOPLE = flags.DEFINE_list("people", [], "Of remove: people.")
UNKNOWN = "unknown"


def main(argv: list[str]) -> None:
    """Do what the first argument says."""
    verbs = {
        "build": _build,
        "search": _search,
        "add": _add,
        "remove": _remove,
        "merge": _merge,
        "index": _index,
    }
    if len(argv) < 3 or argv[1] not in verbs:
        given = f"{argv[1]}: " if len(argv) > 1 and argv[1] not in verbs else ""
        usage = cli.usage(f"{'|'.join(verbs)} GALLERY|FEATURES [MORE] [FLAGS]")
        raise UserError(f"{given}expected one of {', '.join(verbs)} and what it is for; {usage}")
    verbs[argv[1]](argv[2], argv[3:])


def _build(features: str, more: Sequence[str]) -> None:
    _expect_no(more)
    if not _OUTPUT.value:
        raise UserError("--output is missing: the folder of the new gallery")
    expect_writable(Path(_OUTPUT.value) / "manifest.json")
    table = open_features(features)
    gallery = Gallery.create(_OUTPUT.value, table.width, table.model)
    _taken(gallery, table)


def _add(folder: str, more: Sequence[str]) -> None:
    if len(more) != 1:
        raise UserError(f"add {folder}: expected one table of features, got {len(more)}")
    gallery, table = Gallery(folder), open_features(more[0])
    gallery.expect_model(table.model, more[0])
    _taken(gallery, table)


def _taken(gallery: Gallery, table: FeatureTable) -> None:
    gallery.add(table.blocks(), table.count, table.source)
    cli.say(f"{gallery.folder}: {table.count} faces added, {len(gallery)} now")


def _remove(folder: str, more: Sequence[str]) -> None:
    _expect_no(more)
    gallery = Gallery(folder)
    ids = [_id(text) for text in _IDS.value]
    names, people = set(_NAMES.value), set(_PEOPLE.value)
    if not (ids or names or people):
        raise UserError(f"remove {folder}: --ids, --names or --people says which faces")
    if names or people:
        ids += [row.id for row in gallery.rows() if row.name in names or row.person in people]
    count = gallery.remove(ids)
    cli.say(f"{folder}: {count} faces removed, {len(gallery)} left")


def _merge(folder: str, more: Sequence[str]) -> None:
    gallery = Gallery(folder).merge([Gallery(other) for other in more])
    cli.say(f"{folder}: {len(gallery)} faces, in one part")


def _index(folder: str, more: Sequence[str]) -> None:
    _expect_no(more)
    for found in Gallery(folder).index():
        cli.say(
            f"{folder}: finds {found['recall']:.4f} of the {found['neighbors']:.0f} nearest, "
            f"measured on {found['queries']:.0f} of its faces; --method=approximate uses it"
        )


def _search(folder: str, more: Sequence[str]) -> None:
    if not more:
        raise UserError(f"search {folder}: expected photographs, or tables of features")
    for output in (_SHEET.value, _REPORT.value):
        if output:
            expect_writable(Path(output))
    gallery = Gallery(folder)
    limit = _limit(gallery)
    names, features = _queries(gallery, more)
    found = gallery.search(features, _K.value, _METHOD.value)
    matches = [
        [
            _match(gallery.row(int(id)), float(cosine), limit)
            for id, cosine in zip(*of, strict=True)
            if id >= 0
        ]
        for of in zip(found.ids, found.cosines, strict=True)
    ]
    result = {
        "gallery": folder,
        "faces": len(gallery),
        "threshold": None if limit is None else asdict(limit),
        "answers": [_answer(*each) for each in zip(names, matches, strict=True)],
    }
    text = json.dumps(result, indent=1)
    if _REPORT.value:
        write_bytes(Path(_REPORT.value), (text + "\n").encode())
    if _SHEET.value:
        write_bytes(Path(_SHEET.value), encode_png(contact_sheet(names, matches)))
    cli.say(*text.split("\n"))


def _queries(gallery: Gallery, given: Sequence[str]) -> tuple[list[str], np.ndarray]:
    """Return the names and the features of all queries, in their order."""
    photographs = [path for path in given if not is_table(path)]
    embedded = iter(_embedded(gallery, photographs)) if photographs else iter(())
    names, features = list[str](), []
    for path in given:
        if not is_table(path):
            names.append(path)
            features.append(next(embedded)[None])
            continue
        table = open_features(path)
        gallery.expect_model(table.model, path)
        for rows in table.blocks():
            names += rows.names
            features.append(rows.features)
    widths = {part.shape[1] for part in features} - {gallery.manifest.width}
    if widths:
        raise UserError(
            f"features of {widths.pop()} numbers; expected {gallery.manifest.width}, as in "
            f"{gallery.folder}"
        )
    return names, np.concatenate(features)


def _embedded(gallery: Gallery, photographs: Sequence[str]) -> np.ndarray:
    if not _MODEL.value:
        raise UserError(f"--model is missing: the network that embeds {photographs[0]}")
    # Not at the top: features need neither a network nor the libraries that run one.
    from uniface_jax.inference.embedder import Embedder

    model = gallery.manifest.model or {}
    align = model.get("align") == "yes" if _ALIGN.value is None else _ALIGN.value
    embedder = Embedder(_MODEL.value, align=align, mirror=_MIRROR.value)
    gallery.expect_model({"name": _MODEL.value, "sha256": embedder.sha256}, "--model")
    features = embedder.embed(photographs)
    if model and embedder.description != model.get("description"):
        raise UserError(
            f"--model: embeds by {embedder.description}; the features of {gallery.folder} are by "
            f"{model.get('description')}"
        )
    return features


def _limit(gallery: Gallery) -> Limit | None:
    """Return the limit that the flags ask for, None where they ask for none."""
    asked = {"far": _FAR.value, "fpir": _FPIR.value, "threshold": _THRESHOLD.value}
    chosen = {name: value for name, value in asked.items() if value is not None}
    if len(chosen) > 1:
        raise UserError(f"--{' and --'.join(chosen)}: give one of them")
    name, value = next(iter(chosen.items()), ("", None))
    if value is None or name == "threshold":
        for flag in (_CALIBRATION, _MEASURED_ON):
            if flag.value:
                raise UserError(f"--{flag.name}: only with --far or --fpir")
        return None if value is None else Limit(value)
    if not _CALIBRATION.value:
        raise UserError(f"--{name}: --calibration is missing, an evaluation's metrics.json")
    calibration = read_calibration(_CALIBRATION.value)
    model = gallery.manifest.model
    if model is not None:
        calibration.expect_model(model["sha256"], model["description"])
    at = thresholds.limit_at_far if name == "far" else thresholds.limit_at_fpir
    return at(calibration, value, len(gallery), _MEASURED_ON.value)


def _match(row: Row, cosine: float, limit: Limit | None) -> Match:
    return Match(row, cosine, None if limit is None else cosine >= limit.cosine)


def _answer(query: str, matches: Sequence[Match]) -> dict[str, Any]:
    """Return what is said of a query: who it is, or "unknown", and the nearest faces."""
    first = matches[0] if matches else None
    known = first is not None and first.accepted is not False
    nearest = [
        {
            "id": match.row.id,
            "name": match.row.name,
            "person": match.row.person,
            "photograph": match.row.photograph,
            "face": match.row.face,
            "cosine": match.cosine,
            "accepted": match.accepted,
        }
        for match in matches
    ]
    answer = (first.row.person or first.row.name) if first is not None and known else UNKNOWN
    return {"query": query, "answer": answer, "nearest": nearest}


def _id(text: str) -> int:
    try:
        return int(text)
    except ValueError as e:
        raise UserError(f"--ids: {text} is no whole number") from e


def _expect_no(more: Sequence[str]) -> None:
    if more:
        raise UserError(f"{more[0]}: one argument more than is taken")


if __name__ == "__main__":
    cli.run(main)
