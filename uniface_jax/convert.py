"""Command line: turns a source of face images into TFRecord shards that TFDS opens as they are.

python -m uniface_jax.convert SOURCE DEST [--on_error=skip] [--check=decode] [--verify]
python -m uniface_jax.convert SOURCE DEST --shard=0/4    # on the first of four machines, and so on
python -m uniface_jax.convert DEST --finish              # when all of them are done

SOURCE: identity folders, insightface's or im2rec's RecordIO, a list, tar shards (.tar, .tar.gz), an
LMDB file, Parquet or Arrow tables, TFace's index, a verification set (.bin, .xz, tables), or a
TFRecord data set; several, separated by commas, become one. A conversion that was interrupted,
killed or ran out of disk resumes with the same command; its result is the same to the last bit.
"""

import re
from pathlib import Path

from absl import flags

from uniface_jax import cli
from uniface_jax.data.conversion.finish import finish
from uniface_jax.data.conversion.job import CHECKS, ConversionSettings
from uniface_jax.data.conversion.manifest import read_manifest
from uniface_jax.data.conversion.run import convert
from uniface_jax.data.conversion.statistics import PLOT_FILE, plot_statistics, read_statistics
from uniface_jax.data.conversion.verify import verify
from uniface_jax.data.faces.landmark_tables import LandmarkedSource, LandmarkTable
from uniface_jax.data.formats.tfrecord_info import DatasetInfo
from uniface_jax.data.sources.base import Source
from uniface_jax.data.sources.joined import APART, PEOPLE
from uniface_jax.data.sources.opening import SourceOptions, open_source, split_training_sets
from uniface_jax.errors import UserError
from uniface_jax.registry import import_parts

_SHARD_SIZE = flags.DEFINE_integer(
    "shard_size", None, "images in a file; default: 20,000, or what keeps it below 512 files", 1
)
_SEED = flags.DEFINE_integer("seed", 0, "of the shuffle", lower_bound=0, upper_bound=2**32 - 1)
_NAME = flags.DEFINE_string("name", None, "the data set's name; default: made from SOURCE's")
_CHECK = flags.DEFINE_enum(
    "check",
    CHECKS[0],
    CHECKS,
    "of every image: its structure (markers, sizes, PNG checksums), or a full decode as well",
)
_ON_ERROR = cli.define_on_error("an image or a folder that cannot be used")
_JSON_KEY = flags.DEFINE_string(
    "json_key", None, "of the class in the .json of a tar, or its column; default: label, cls, …"
)
_PEOPLE = flags.DEFINE_enum(
    "people", APART, PEOPLE, "of several SOURCEs: each one's own, or one person where names are one"
)
_LANDMARKS = flags.DEFINE_string(
    "landmarks", None, "of the faces, kept in the records: align's alignment.json, or a CSV of them"
)
_IMPORTS = cli.define_imports()
_WORKERS = flags.DEFINE_integer("workers", None, "processes; default: one a core", 1)
_SHARD = flags.DEFINE_string("shard", None, "i/n: only every n-th shard, from the i-th on")
_FINISH = flags.DEFINE_boolean("finish", False, "make the shards of all --shard runs a data set")
_VERIFY = flags.DEFINE_boolean(
    "verify", False, "read source and result again and prove that they hold the same images"
)
_MAX_LISTED_LINES = 10


def main(argv: list[str]) -> None:
    """Convert, finish or verify, and print what was done."""
    import_parts(_IMPORTS.value, "--imports")
    if _FINISH.value:
        if _VERIFY.value or _SHARD.value is not None:
            raise UserError(
                "--finish: expected without --shard and --verify; convert SOURCE DEST --verify "
                "verifies what is finished"
            )
        (given,) = cli.positional(argv, "DEST")
        finish(Path(given))
        _report(Path(given))
        return
    given_source, given_destination = cli.positional(argv, "SOURCE", "DEST")
    destination = Path(given_destination)
    part = _part(_SHARD.value)
    if _VERIFY.value and part != (0, 1):
        raise UserError("--verify: for the whole data set; expected without --shard")
    options = SourceOptions(_ON_ERROR.value == "skip", _JSON_KEY.value, _PEOPLE.value)
    source = open_source(given_source, options)
    if _LANDMARKS.value:
        source = LandmarkedSource(source, LandmarkTable(Path(_LANDMARKS.value)))
    for note in source.notes[:_MAX_LISTED_LINES]:
        print(note)
    if len(source.notes) > _MAX_LISTED_LINES:
        print(f"… and {len(source.notes) - _MAX_LISTED_LINES} more of this kind")
    try:
        info = _convert(source, destination, given_source, part)
    except KeyboardInterrupt:
        print("stopped; finished shards are kept, and the same command resumes")
        raise
    if info is None:
        print(
            cli.spoken(
                f"part {_SHARD.value} is done; when all are, python -m uniface_jax.convert "
                f"{given_destination} --finish"
            )
        )
        return
    _report(destination)
    if _VERIFY.value:
        _verify(source, destination)


def _convert(
    source: Source, destination: Path, given: str, part: tuple[int, int]
) -> DatasetInfo | None:
    settings = ConversionSettings(
        name=_NAME.value or _name_of(given),
        seed=_SEED.value,
        shard_size=_SHARD_SIZE.value,
        check=_CHECK.value,
        on_error=_ON_ERROR.value,
        description=f"Converted from {', '.join(_last_parts(given))} by uniface_jax.",
    )
    return convert(source, destination, settings, part=part, workers=_WORKERS.value)


def _report(destination: Path) -> None:
    """Draw the statistics and print the result."""
    statistics = read_statistics(destination)
    if not (destination / PLOT_FILE).exists():
        plot_statistics(statistics, destination / PLOT_FILE)
    manifest = read_manifest(destination)
    for entry in manifest.turned[:_MAX_LISTED_LINES]:
        print(
            f"{entry['name']}: EXIF says that it is stored turned (orientation "
            f"{entry['orientation']}); it is turned upright here, not by TensorFlow's decoder"
        )
    if len(manifest.turned) > _MAX_LISTED_LINES:
        more = len(manifest.turned) - _MAX_LISTED_LINES
        print(f"… and {more} more of this kind, all in manifest.json")
    if manifest.dropped:
        print(
            f"{len(manifest.dropped)} of {manifest.source_classes} classes are left out: every "
            "image of theirs was skipped; the others are numbered anew"
        )
    for entry in manifest.skipped[:_MAX_LISTED_LINES]:
        print(f"skipped: {entry['reason']}")
    if len(manifest.skipped) > _MAX_LISTED_LINES:
        print(f"… and {len(manifest.skipped) - _MAX_LISTED_LINES} more, all in manifest.json")
    duplicates = statistics["duplicates"]
    if duplicates["surplus_images"]:
        print(
            f"{duplicates['surplus_images']} images are the same bytes as another one; "
            f"{duplicates['groups_of_several_classes']} groups of them have several classes"
        )
    shards = "1 shard" if len(manifest.shards) == 1 else f"{len(manifest.shards)} shards"
    print(
        f"{manifest.images:,} images of {manifest.classes:,} classes in {shards} in {destination}"
    )


def _verify(source: Source, destination: Path) -> None:
    done = verify(source, destination, _WORKERS.value)
    left_out = f", {done.skipped} were skipped" if done.skipped else ""
    print(
        f"verified: source and data set hold the same {done.images:,} images with the same labels"
        f"{left_out} (multiset {done.multiset_sha256[:16]})"
    )


def _part(value: str | None) -> tuple[int, int]:
    if value is None:
        return 0, 1
    found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", value)
    if not found or not int(found[1]) < int(found[2]):
        raise UserError(f"--shard={value}: expected i/n with i from 0 to n-1")
    return int(found[1]), int(found[2])


def _last_parts(given: str) -> list[str]:
    """Return the last part of the path of each set."""
    return [Path(each).name for each in split_training_sets(given)]


def _name_of(given: str) -> str:
    """Make a TFDS name of the sources': letters, digits, underscores, a letter first."""
    names = "_".join(Path(each).resolve().name for each in split_training_sets(given))
    name = re.sub(r"[^a-z0-9]+", "_", names.lower()).strip("_")
    return name if name[:1].isalpha() and name.isascii() else f"faces_{name}".rstrip("_")


if __name__ == "__main__":
    cli.run(main)
