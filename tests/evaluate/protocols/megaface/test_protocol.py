"""MegaFace from folders on disk, against a loop over all pairs."""

import numpy as np
import pytest

from tests.helpers.feature_sources import computed_features
from tests.helpers.pair_loops import check, split
from uniface_jax.errors import UserError
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
        intervals = result.uncertainty["intervals"]
        assert (intervals["units"], intervals["count"]) == ("people", 4)
        limits = intervals["ranks"][0]["rate"]
        assert limits["lower"] < last["rank"]["1"] < limits["upper"]
        same, _ = split(probes, features)
        tar = result.metrics["verification"]["tar_at_far"][0]["strict"]["tar"]
        limits = intervals["tar_at_far"][0]["strict"]["tar"]
        assert limits["lower"] <= tar <= limits["upper"]
        different = np.array([features[a] @ features[d] for a in probes for d in others])
        check(result.metrics["verification"], same, different, 0.1)
        (threshold,) = result.uncertainty["thresholds"]
        cosine, of_cosine = (threshold[f"threshold_cosine{end}"] for end in ("", "_interval"))
        assert of_cosine["lower"] < cosine < of_cosine["upper"]
        of_far = threshold["far_interval"]
        assert of_far["lower"] <= np.mean(different >= cosine) <= of_far["upper"]
        assert np.mean(different >= of_cosine["lower"] - 1e-6) >= of_far["upper"] - 1e-9
        shown = result.drawings["pairs"]["different"][0]
        assert shown["score"] == pytest.approx(max(different), abs=1e-5)
        assert "/north/" in shown["sides"][0]["label"]
        assert "/south/" in shown["sides"][1]["label"]
        assert PROTOCOLS["megaface"].row(result.metrics)["distractors"] == str(len(others))
        assert paper.comparable("megaface", name, result.metrics) == {}


def test_the_label_leak_is_named_and_that_of_a_loop(world, tmp_path):
    """The center of a person stands for a noisy probe, among the refined distractors."""
    folder, features = world
    noise = tmp_path / "noise.txt"
    noise.write_text("p1/2.png\np2/0.png\n")
    parts = Parts(
        [],
        {"probes": folder / "north", "distractors": folder / "south", "noisy_probes": noise},
    )
    options = Options([0.1], label_leak=True)
    found = PROTOCOLS["megaface"].run(parts, computed_features(tmp_path), options)
    assert list(found) == ["raw", "refined", "refined_label_leak"]
    used = dict(features)
    for name in ("north/p1/2.png", "north/p2/0.png"):
        person = name.rsplit("/", 1)[0]
        center = sum(f for n, f in features.items() if n.startswith(person) and n != name)
        used[name] = center / np.linalg.norm(center)
    probes = [n for n in used if n.startswith("north")]
    others = [n for n in used if n.startswith("south")]
    ranks = [
        1 + sum(used[a] @ used[d] >= used[a] @ used[b] for d in others)
        for a in probes
        for b in probes
        if a != b and a.rsplit("/", 1)[0] == b.rsplit("/", 1)[0]
    ]
    leaked = found["refined_label_leak"].metrics
    assert leaked["probes"] == found["raw"].metrics["probes"] == 12
    assert found["refined"].metrics["probes"] == 10
    assert leaked["identification"][-1]["rank"]["1"] == ranks.count(1) / len(ranks)
    same, _ = split(probes, used)
    lowest = found["refined_label_leak"].drawings["pairs"]["same"][0]["score"]
    assert lowest == pytest.approx(min(same), abs=1e-3)  # the drawn numbers are that small
    full = {
        **leaked,
        "identities": 80,
        "identification": [{"distractors": 10**6, "rank": {"1": 1}}],
    }
    assert paper.comparable("megaface", "refined_label_leak", full) == {}
    noise.write_text("p1/0.png\np1/1.png\np1/2.png\n")
    with pytest.raises(UserError, match="p1: all its probes are noisy"):
        PROTOCOLS["megaface"].run(parts, computed_features(tmp_path), options)
    del parts.named["noisy_probes"]
    with pytest.raises(UserError, match=r"--label_leak: .*noisy_probes= is missing"):
        PROTOCOLS["megaface"].run(parts, computed_features(tmp_path), options)
