"""MegaFace from folders on disk, against a loop over all pairs."""

import numpy as np
import pytest

from tests.helpers.feature_sources import computed_features
from tests.helpers.pair_loops import check, split
from uniface_jax.evaluate.arguments import Parts
from uniface_jax.evaluate.protocols import PROTOCOLS
from uniface_jax.evaluate.protocols.base import Options
from uniface_jax.evaluate.report import paper


def test_megaface_is_that_of_a_loop_raw_and_refined(world, tmp_path):
    folder, features = world
    noise = tmp_path / "noise.txt"
    noise.write_text("p1/2.png\n")
    links = tmp_path / "south"
    links.mkdir()
    for person in (folder / "south").iterdir():
        (links / person.name).symlink_to(person)
    (links / "again").symlink_to(links)
    parts = Parts(
        [],
        {"probes": folder / "north", "distractors": links, "noisy_distractors": noise},
    )
    found = PROTOCOLS["megaface"].run(parts, computed_features(tmp_path), Options([0.1]))
    assert list(found) == ["raw", "refined"]
    probes = [n for n in features if n.startswith("north")]
    for name, result in found.items():
        others = [n for n in features if n.startswith("south")]
        if name == "refined":
            others.remove("south/p1/2.png")
        ranks = [
            1 + sum(features[a] @ features[d] >= features[a] @ features[b] for d in others)
            for a in probes
            for b in probes
            if a != b and a.rsplit("/", 1)[0] == b.rsplit("/", 1)[0]
        ]
        last = result.metrics["identification"][-1]
        assert last["distractors"] == len(others)
        assert last["rank"]["1"] == ranks.count(1) / len(ranks)
        assert 0 < last["rank"]["1"] < 1
        same, _ = split(probes, features)
        different = np.array([features[a] @ features[d] for a in probes for d in others])
        check(result.metrics["verification"], same, different, 0.1)
        shown = result.drawings["pairs"]["different"][0]
        assert shown["score"] == pytest.approx(max(different), abs=1e-5)
        assert "/north/" in shown["sides"][0]["label"]
        assert "/south/" in shown["sides"][1]["label"]
        assert PROTOCOLS["megaface"].row(result.metrics)["distractors"] == str(len(others))
        assert paper.comparable("megaface", name, result.metrics) == {}
