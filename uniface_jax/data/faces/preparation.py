"""Data sets that a recipe has made where they are missing: config.data.prepare, NAME:FOLDER."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from uniface_jax.data.faces import orl
from uniface_jax.errors import UserError


@dataclass(frozen=True)
class Preparation:
    """Make a data set in a folder. title: what is prepared, for the reader of a log."""

    title: str
    is_complete: Callable[[Path], bool]
    make: Callable[[Path], None]


PREPARATIONS: Mapping[str, Preparation] = {
    "orl": Preparation("the demo's faces", orl.is_complete, orl.make_demo_data),
}


def prepare(wanted: str, used: Sequence[str]) -> None:
    """Make the data set that `wanted` (NAME:FOLDER) names, if it is not complete, and say so.

    used: the paths that a run reads. Where none of them lies in FOLDER nothing is made: the run was
    given other data. Raises UserError for a name that is not in PREPARATIONS, and for what keeps
    the data set from being made.
    """
    name, colon, folder = wanted.partition(":")
    if name not in PREPARATIONS or not colon or not folder:
        raise UserError(
            f"config.data.prepare={wanted}: expected NAME:FOLDER with a name of "
            f"{', '.join(PREPARATIONS)}"
        )
    preparation, destination = PREPARATIONS[name], Path(folder)
    if not any(Path(path).is_relative_to(destination) for path in used):
        return
    if not preparation.is_complete(destination):
        print(f"{destination}: preparing {preparation.title}", flush=True)
        preparation.make(destination)
