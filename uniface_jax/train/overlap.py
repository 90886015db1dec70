"""Warning of a run that validates on people or images it trains on, as `clean --against` found."""

from collections.abc import Mapping

from uniface_jax.data.formats.bin_pairs import PairSet
from uniface_jax.data.formats.overlap_list import overlap_file, read_overlaps, set_digest


def overlap_warnings(train: str, images: int, sets: Mapping[str, PairSet]) -> list[str]:
    """Return a line for each validation set that shares people with the training set.

    Args:
        train: config.data.train, beside which the list lies, if there is one.
        images: of the training set now.
        sets: the validation sets by name, with their images.

    Raises:
        UserError: the file beside the training set is no such list.
    """
    file = overlap_file(train)
    if not file.is_file():
        return []
    counted, overlaps = read_overlaps(file)
    by_digest = {each.digest: each for each in overlaps if each.people or each.same_images}
    then = "" if counted == images else f", of a state of it with {counted:,} images"
    found = []
    for name, pairs in sets.items():
        shared = by_digest.get(set_digest(pairs.images))
        if shared is not None:
            found.append(
                f"{name}: {shared.people:,} people of the training set are in it, and "
                f"{shared.same_images:,} of its {shared.images:,} images (by {file}{then}): what "
                "is measured on it is not of people never seen"
            )
    return found
