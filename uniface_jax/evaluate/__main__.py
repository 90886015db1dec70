"""Command line: evaluates models by the protocols of the field; writes numbers and a report.

python -m uniface_jax.evaluate --model=runs/demo --protocol=verification --data=lfw.bin,pairs/
python -m uniface_jax.evaluate --model=runs/demo --suite=/data/faces
python -m uniface_jax.evaluate --compare A B C --protocol=verification --data=lfw.bin

--data says which files are which part of a protocol, PART,PART,… where a part is PATH or KEY=PATH;
with several protocols it is repeated, and each value begins with PROTOCOL: as in
--protocol=verification,ijb --data=verification:lfw.bin --data=ijb:/data/IJBC
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from absl import flags

from uniface_jax import cli
from uniface_jax.errors import UserError
from uniface_jax.evaluate import protocol_flags
from uniface_jax.evaluate.arguments import Parts, parse_embeddings
from uniface_jax.evaluate.features import ComputedFeatures, FeatureSource, GivenFeatures
from uniface_jax.evaluate.kept_features import FeatureCache
from uniface_jax.evaluate.protocols import run_protocol
from uniface_jax.evaluate.protocols.base import SEARCH_READINGS, Options, Results
from uniface_jax.evaluate.report import reading, report, results
from uniface_jax.evaluate.sets.image_sets import FileDigests
from uniface_jax.evaluate.suite.finding import FoundSet, find_sets
from uniface_jax.evaluate.suite.running import run_suite
from uniface_jax.files.own_folder import KnownDigests, own_folder_if_trusted
from uniface_jax.files.writing import expect_writable
from uniface_jax.inference import model_flags
from uniface_jax.registry import import_parts

_MODEL = flags.DEFINE_string(
    "model", None, "A workdir of training, one of its checkpoints/STEP, or an ONNX file."
)
_EMBEDDINGS = flags.DEFINE_list(
    "embeddings",
    None,
    "Instead of a model: FILE.npy of features, a row an image, or SET=FILE.npy,… by the name of "
    "the set; or the embeddings/ folder that an earlier evaluation left.",
)
_COMPARE = flags.DEFINE_bool(
    "compare", False, "Arguments are several models or folders with results: all in one report."
)
_WORK = protocol_flags.define()
_SUITE = flags.DEFINE_string(
    "suite",
    None,
    "Instead of --protocol and --data: a folder; every set of the papers' tables that is in it is "
    "evaluated, and one table of all is printed and left as suite.md and suite.tex.",
)
_OUTPUT = flags.DEFINE_string(
    "output",
    None,
    "Folder for metrics.json, report.html, figures/ and embeddings/; default: WORKDIR/evaluation, "
    "where a workdir is evaluated.",
)
_CACHE = flags.DEFINE_string(
    "cache", None, "Folder of embeddings that several evaluations share; default: in the output."
)
_TRUST_CACHE = flags.DEFINE_bool(
    "trust_cache",
    False,
    "Take embeddings that lie in the cache though this user has not computed them here; "
    "default: they are computed again, and stay where they are the same.",
)
_MODEL_FLAGS = model_flags.define()
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 64, "Images embedded at a time.", lower_bound=1)
_IMPORTS = cli.define_imports()
_IJB_READING = flags.DEFINE_enum(
    "ijb_reading",
    SEARCH_READINGS[0],
    SEARCH_READINGS,
    "Of IJB's 1:N in tables: the definition, or IJB_evals.py's, which lets one unknown probe fewer "
    "pass and breaks ties by the gallery's order; metrics.json has both.",
)
_LABEL_LEAK = flags.DEFINE_bool(
    "label_leak",
    False,
    "Of MegaFace: beside the refined numbers, refined_label_leak, in which a noisy probe is "
    "replaced by the center of its identity, as insightface's script does; it leaks labels.",
)
_ON_ERROR = cli.define_on_error("an empty identity folder, or one inside a person's,")


def main(argv: list[str]) -> int:
    """Embed, compute, write; print tables and where the files are. Return 1 where a set failed."""
    import_parts(_IMPORTS.value, "--imports")
    if _COMPARE.value:
        _compare(argv[1:])
        return 0
    cli.positional(argv)
    model, given = _MODEL.value, _EMBEDDINGS.value
    if model and given:
        raise UserError("--model and --embeddings: give one of them")
    if given:
        for flag in (_MODEL_FLAGS.holders["landmarks"], _MODEL_FLAGS.weights):
            if flag.present:
                raise UserError(f"--{flag.name}: of a --model, and --embeddings are features")
    work = _suite() if _SUITE.value else _work()
    if model:
        output = _folder(_OUTPUT.value or _default_output(model))
        failed = _run(_computed_features(model, output), model, output, work)
    elif given:
        output = _folder(_OUTPUT.value or _no_output("--embeddings"))
        source = GivenFeatures.open(parse_embeddings(given), FileDigests(_own_folder("sets")))
        failed = _run(source, ",".join(given), output, work)
    else:
        raise UserError(f"--model or --embeddings is missing; {_usage()}")
    cli.say(f"{results.METRICS}, {results.REPORT} and figures: {output}")
    return 1 if failed else 0


def _suite() -> tuple[list[FoundSet], Options]:
    """Return the sets in the folder of --suite, and the options."""
    for flag in (_WORK.protocol, _WORK.data):
        if flag.present:
            raise UserError(
                f"--{flag.name}: --suite finds sets and protocols by itself; leave it out"
            )
    sets, notes = find_sets(Path(_SUITE.value or ""))
    if notes:
        cli.say(*notes)
    return sets, _options()


def _run(
    source: FeatureSource, path: str, output: Path, work: tuple[Any, Options]
) -> Mapping[str, str]:
    """Evaluate a suite or the parts of protocols; return the line of each set that failed."""
    if _SUITE.value:
        return run_suite(source, path, output, *work)
    _evaluate(source, path, output, work)
    return {}


def _compare(arguments: Sequence[str]) -> None:
    """Evaluate models into OUTPUT/NAME, and read folders with results."""
    if len(arguments) < 2:
        raise UserError("--compare: expected two or more models or folders with results")
    if _MODEL.value or _EMBEDDINGS.value:
        raise UserError("--compare takes its models as arguments, without --model or --embeddings")
    if _SUITE.value:
        raise UserError("--suite: of one --model; --compare the folders that it leaves")
    # Before anything is computed: a damaged folder must not be found after hours.
    finished = {
        path: reading.read(Path(path)) for path in arguments if reading.is_results(Path(path))
    }
    for note in dict.fromkeys(note for run in finished.values() for note in run.notes):
        cli.say(f"left out: {note}")
    work = None if len(finished) == len(set(arguments)) else _work()
    output = _folder(_OUTPUT.value or _no_output("--compare"))
    runs, taken = [], set()
    for path in arguments:
        if work is None or path in finished:
            runs.append(finished[path])
            continue
        name = Path(path).resolve().stem
        while name in taken:
            name += "_"
        taken.add(name)
        folder = _folder(output / name)
        runs.append(_evaluate(_computed_features(path, folder), path, folder, work))
    runs = results.named_apart(runs)
    report.write(output, runs)
    if lines := report.difference_lines(runs):
        cli.say(*lines)
    cli.say(f"{results.REPORT} and figures: {output}")


def _work() -> tuple[Mapping[str, Parts], Options]:
    """Return the parts by protocol, and the options, checked before a model is loaded."""
    return _WORK.parts(_usage), _options()


def _options() -> Options:
    return Options(
        _WORK.targets(), _ON_ERROR.value == "skip", _IJB_READING.value, _LABEL_LEAK.value
    )


def _computed_features(path: str, output: Path) -> FeatureSource:
    model = _MODEL_FLAGS.load(path)
    cli.say(*(f"{path}: {line}" for line in (model.description, *model.notes)))
    known = KnownDigests(_own_folder("features"))
    cache = FeatureCache(_cache(output), known, _TRUST_CACHE.value)
    return ComputedFeatures(model, cache, _BATCH_SIZE.value, FileDigests(_own_folder("sets")))


def _own_folder(name: str) -> Path | None:
    """Return the user's own folder; None, and say why, where there is none to be trusted."""
    return own_folder_if_trusted(
        name, lambda why: cli.say(f"{why}: {name} are not known again by the next evaluation")
    )


def _evaluate(
    source: FeatureSource,
    path: str,
    output: Path,
    work: tuple[Mapping[str, Parts], Options],
) -> results.Run:
    """Run each protocol; write all results so far into `output`, and then print the new ones.

    The next protocol may take hours, and what is printed may not reach anybody.
    """
    parts, options = work
    found: dict[str, Results] = {}
    run = results.collect(source, path, found)
    for name in parts:
        found[name] = run_protocol(name, parts[name], source, options)
        run = results.collect(source, path, found)
        results.write(output, run)
        report.write(output, [run])
        for result in found[name].values():
            for note in result.metrics.get("left_out", ()):
                cli.say(note)
        cli.say(*report.tables(results.collect(source, path, {name: found[name]})).split("\n"))
    return run


def _cache(output: Path) -> Path:
    return _folder(_CACHE.value) if _CACHE.value else output / "embeddings"


def _folder(path: Path | str) -> Path:
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise UserError(f"--output: {path} cannot be made a folder ({e.strerror})") from e
    expect_writable(Path(path) / results.METRICS)
    return Path(path)


def _usage() -> str:
    return cli.usage("--model=MODEL --data=FILES [--protocol=…] [--output=FOLDER]")


def _no_output(given: str) -> NoReturn:
    """Raise UserError: of what is `given` no workdir follows, into which results could go."""
    raise UserError(f"--output is missing: with {given} it must say where results go")


def _default_output(model: str) -> Path:
    if Path(model).is_file():
        _no_output("an ONNX file")
    from uniface_jax.checkpoints.reading import (
        locate,  # not for ONNX files: it takes a second to import
    )

    workdir, _ = locate(model)
    return workdir / "evaluation"


if __name__ == "__main__":
    cli.run(main)
