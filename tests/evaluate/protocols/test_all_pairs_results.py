"""The images that hardest pairs are shown with."""

import pytest

from tests.helpers.feature_sources import computed_features
from uniface_jax.evaluate.arguments import Parts
from uniface_jax.evaluate.protocols import PROTOCOLS
from uniface_jax.evaluate.protocols.base import Options


@pytest.mark.parametrize(("probe_people", "distractor_people"), [(4, 1), (1, 4)])
def test_two_sets_of_unequal_size_show_their_own_images(
    world, tmp_path, probe_people, distractor_people
):
    """The hardest pairs name images of the set that each side is from, whichever is larger."""
    folder, _ = world
    for name, population, people in (
        ("few", "north", probe_people), ("others", "south", distractor_people)
    ):  # fmt: skip
        (tmp_path / name).mkdir()
        for person in range(people):
            (tmp_path / name / f"p{person}").symlink_to(folder / population / f"p{person}")
    first, second = tmp_path / "few", tmp_path / "others"
    source = computed_features(tmp_path)
    mega = (
        PROTOCOLS["megaface"]
        .run(Parts([], {"probes": first, "distractors": second}), source, Options([0.1]))["raw"]
        .drawings["pairs"]
    )
    mask = (
        PROTOCOLS["mfr"]
        .run(Parts([], {"masked": first, "plain": second}), source, Options([0.1]))["mask"]
        .drawings["pairs"]
    )
    for pairs, kind, second_name in (
        (mega, "same", "few"), (mega, "different", "others"),
        (mask, "same", "others"), (mask, "different", "others"),
    ):  # fmt: skip
        for entry in pairs[kind]:
            sides = [side["label"] for side in entry["sides"]]
            assert "/few/" in sides[0]
            assert f"/{second_name}/" in sides[1]
            assert all(side["picture"] for side in entry["sides"])
        assert pairs[kind]
