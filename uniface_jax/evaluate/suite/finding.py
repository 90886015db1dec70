"""Sets of the field in a folder, by the names of their files, with the protocol of each."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from uniface_jax.data.sources.folders import visible
from uniface_jax.errors import UserError
from uniface_jax.evaluate.arguments import Parts
from uniface_jax.evaluate.sets.known_lists import LISTS
from uniface_jax.evaluate.sets.rfw_trees import RACES

DEPTH = 3  # folders inside one another that are looked into
_MANY = 200  # folders in one: those of people, which are not looked into
_BINS = ("lfw", "cfp_fp", "cfp_ff", "agedb_30", "calfw", "cplfw", "xqlfw", "vgg2_fp")
_SUFFIXES = (".bin", ".xz")
_IJB = ("ijbb", "ijbc")
_PROBES, _DISTRACTORS = ("facescrub_images", "probes"), ("megaface_images", "distractors")
_NOISE = {"noisy_probes": "facescrub_noises.txt", "noisy_distractors": "megaface_noises.txt"}
_MFR = ("all", "masked", "plain")
LOOKED_FOR = (
    f"{', '.join(_BINS)} (.bin, .xz), the lists of {', '.join(LISTS)}, IJB-B and IJB-C (meta/), "
    "MegaFace (facescrub_images, megaface_images), RFW, TinyFace, and mfr*/ with all/, masked/, "
    "plain/"
)


@dataclass(frozen=True)
class FoundSet:
    """A set: its name, the protocol that evaluates it, and the files that it takes."""

    name: str
    protocol: str
    parts: Parts
    place: Path


def find_sets(root: Path) -> tuple[list[FoundSet], list[str]]:
    """Find the sets in a folder, and say which of them are there again and left out.

    Of a set that lies there twice the one nearer to `root` is taken, of a .bin and a list the .bin.
    Raises UserError where there is no such folder, or no set in it.
    """
    if not root.is_dir():
        raise UserError(f"--suite: {root}: no such folder")
    taken: dict[str, FoundSet] = {}
    notes = []
    level = [root]
    for _ in range(DEPTH + 1):
        below: list[Path] = []
        for folder in level:
            found = list(_in_folder(folder))
            for one in found:
                first = taken.setdefault(one.name, one)
                if first is not one:
                    notes.append(f"{one.name}: {one.place} is left out, beside {first.place}")
            if not any(one.place == folder for one in found):
                names = visible(folder, folders=True)
                below += [folder / name for name in names] if len(names) <= _MANY else []
        level = below
    if not taken:
        raise UserError(f"--suite: {root}: no set in it; looked for {LOOKED_FOR}")
    order = list(dict.fromkeys([*_BINS, *LISTS, *_IJB, *sorted(taken)]))
    return sorted(taken.values(), key=lambda one: order.index(one.name)), notes


def _in_folder(folder: Path) -> Iterator[FoundSet]:
    """Yield the sets whose files lie in this folder; their place is the folder for a whole tree."""
    for find in (_bins, _lists, _trees, _mfr):
        yield from find(folder)


def _bins(folder: Path) -> Iterator[FoundSet]:
    for name in _BINS:
        files = (folder / f"{name}{suffix}" for suffix in _SUFFIXES)
        file = next((file for file in files if file.is_file()), None)
        if file is not None:
            yield FoundSet(_ALIKE.get(name, name), "verification", Parts([file]), file)


def _lists(folder: Path) -> Iterator[FoundSet]:
    for name, known in LISTS.items():
        file = next((folder / list_ for list_ in known if (folder / list_).is_file()), None)
        if file is not None:
            yield FoundSet(name, "lists", Parts([], {name: file}), file)


def _trees(folder: Path) -> Iterator[FoundSet]:
    for name in _IJB:
        if (folder / "meta" / f"{name}_face_tid_mid.txt").is_file():
            yield FoundSet(name, "ijb", Parts([folder]), folder)
    for name, is_tree in (("rfw", _is_rfw), ("tinyface", _is_tinyface)):
        if is_tree(folder):
            yield FoundSet(name, name, Parts([folder]), folder)
    probes, distractors = (
        next((folder / name for name in names if (folder / name).is_dir()), None)
        for names in (_PROBES, _DISTRACTORS)
    )
    if probes is not None and distractors is not None:
        noise = {key: folder / name for key, name in _NOISE.items() if (folder / name).is_file()}
        parts = Parts([], {"probes": probes, "distractors": distractors, **noise})
        yield FoundSet("megaface", "megaface", parts, folder)


def _mfr(folder: Path) -> Iterator[FoundSet]:
    if not folder.name.lower().startswith("mfr"):
        return
    parts = {name: folder / name for name in _MFR if (folder / name).is_dir()}
    if (folder / "populations.csv").is_file():
        parts["populations"] = folder / "populations.csv"
    if parts:
        yield FoundSet("mfr", "mfr", Parts([], parts), folder)


def _is_rfw(folder: Path) -> bool:
    bins = any((folder / f"{race}_test.bin").is_file() for race in RACES)
    return bins or any((folder / "txts" / race).is_dir() for race in RACES)


def _is_tinyface(folder: Path) -> bool:
    trees: Sequence[Callable[[], bool]] = (
        (folder / "tinyface" / "Testing_Set").is_dir,
        (folder / "Testing_Set").is_dir,
        lambda: (folder / "Probe").is_dir() and (folder / "Gallery_Match").is_dir(),
    )
    return any(tree() for tree in trees)


_ALIKE = {"agedb_30": "agedb"}
