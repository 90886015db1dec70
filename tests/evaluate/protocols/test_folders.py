"""Identity folders on disk, with and without populations, against loops over all pairs."""

from pathlib import Path

import pytest

from tests.helpers.feature_sources import computed_features
from tests.helpers.pair_loops import check, split
from uniface_jax.errors import UserError
from uniface_jax.evaluate.arguments import Parts
from uniface_jax.evaluate.protocols import PROTOCOLS
from uniface_jax.evaluate.protocols.base import Options


def test_folders_and_populations_are_those_of_a_loop(world, tmp_path):
    folder, features = world
    source, options = computed_features(tmp_path), Options([0.1])
    found = PROTOCOLS["mfr"].run(Parts([], {"all": folder}), source, options)
    assert list(found) == ["north", "south", "ALL"]
    for name, result in found.items():
        names = [n for n in features if name in ("ALL", n.split("/")[0])]
        same, different = split(names, features)
        check(result.metrics, same, different, 0.1)
        drawn = result.drawings["scores"]
        assert (sum(drawn["same"]), sum(drawn["different"])) == (len(same), len(different))
        assert 10 < len(drawn["same"]) + 1 == len(drawn["edges"]) <= 62
        shown = result.drawings["pairs"]
        assert shown["same"][0]["score"] == pytest.approx(min(same), abs=1e-5)
        first, second = (side["label"] for side in shown["different"][0]["sides"])
        pair = [str(Path(label).relative_to(folder)) for label in (first, second)]
        assert features[pair[0]] @ features[pair[1]] == pytest.approx(max(different), abs=1e-5)
        assert shown["same"][0]["sides"][0]["picture"]
        assert PROTOCOLS["mfr"].row(result.metrics)["images"] == str(len(names))
    north = PROTOCOLS["folders"].run(Parts([folder / "north"]), source, options)["north"]
    assert north.metrics["tar_at_far"] == found["north"].metrics["tar_at_far"]


def test_what_is_missing_is_named(world, tmp_path):
    folder, _ = world
    source, options = computed_features(tmp_path), Options()
    for protocol, named, message in [
        ("mfr", {"masked": folder}, "masked= and plain= belong together"),
        ("mfr", {"masked": folder, "plain": folder, "populations": folder}, "populations= is a"),
        ("mfr", {"all": tmp_path / "none"}, "none: cannot be listed"),
        ("megaface", {"probes": folder / "north", "distractors": tmp_path / "no"}, "no: no such"),
    ]:
        with pytest.raises(UserError, match=message):
            PROTOCOLS[protocol].run(Parts([], named), source, options)
    (tmp_path / "one").mkdir()
    (tmp_path / "one/p0").symlink_to(folder / "north/p0")
    with pytest.raises(UserError, match="one with corners: all 3 pairs"):
        PROTOCOLS["folders"].run(Parts([tmp_path / "one"]), source, options)
