"""Protocol `lists`: LFW and the sets made after it, from the lists that they are given out with."""

from uniface_jax.errors import UserError
from uniface_jax.evaluate.arguments import PartNames, Parts
from uniface_jax.evaluate.features import FeatureSource
from uniface_jax.evaluate.protocols import verification
from uniface_jax.evaluate.protocols.base import Options, Protocol, Results
from uniface_jax.evaluate.sets.known_lists import LISTS, open_known_list


def run(parts: Parts, source: FeatureSource, options: Options) -> Results:
    """Evaluate each set that is given; all lists are read before anything is embedded.

    The part `root` is a folder of images that is looked into first.
    """
    if set(parts.named) == {"root"}:
        raise UserError(f"--data: lists: only root=; expected one of {', '.join(LISTS)}")
    root = parts.named.get("root")
    opened = {
        name: open_known_list(name, path, root)
        for name, path in parts.named.items()
        if name != "root"
    }
    return {
        name: verification.opened_result(source, found, options) for name, found in opened.items()
    }


_LISTS = "its list of pairs, or the FOLDER of list and images"
OWN_LISTS = Protocol(
    "LFW and the sets after it, by their own lists",
    PartNames("", {**dict.fromkeys(LISTS, _LISTS), "root": "FOLDER of the images"}),
    run,
    verification.row,
)
