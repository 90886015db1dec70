"""mfr, megaface and folders from files on disk, against loops over all pairs."""

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.feature_sources import computed_features, corners_both
from uniface_jax.data.formats.images import encode_png
from uniface_jax.errors import UserError
from uniface_jax.evaluate.arguments import Parts
from uniface_jax.evaluate.protocols import PROTOCOLS
from uniface_jax.evaluate.protocols.base import Options
from uniface_jax.evaluate.report import paper


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Two populations of four people with three images each: {"north/p0/0.png": unit feature}."""
    folder = tmp_path_factory.mktemp("world")
    rng = np.random.default_rng(11)
    features = {}
    for population in ("north", "south"):
        for person in range(4):
            base = rng.integers(0, 256, (112, 112, 3))
            for number in range(3):
                name = f"{population}/p{person}/{number}.png"
                noisy = base + rng.normal(0, 90, base.shape)
                face = np.clip(noisy, 0, 255).astype(np.uint8)
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).write_bytes(encode_png(face))
                feature = corners_both(face[None])[0].astype(float)
                features[name] = feature / np.linalg.norm(feature)
    return folder, features


def split(names, features):
    """Scores of same and of different pairs of the images `names`, by a loop."""
    same, different = [], []
    for a, b in combinations(names, 2):
        kind = same if a.rsplit("/", 1)[0] == b.rsplit("/", 1)[0] else different
        kind.append(features[a] @ features[b])
    return np.array(same), np.array(different)


def check(metrics, same, different, far):
    """TAR and counts at `far`; float32 scores may exchange those that agree to 1e-5."""
    assert (metrics["same"], metrics["different"]) == (len(same), len(different))
    (entry,) = metrics["tar_at_far"]
    barrier = np.sort(different)[::-1][int(far * len(different))]
    assert entry["strict"]["tar"] == np.mean(same > barrier)
    assert entry["strict"]["false_accepts"] == np.count_nonzero(different > barrier)
    wins = np.mean([a > b for a in same for b in different])
    assert metrics["auc"]["lower"] == pytest.approx(wins, abs=1e-3)


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


def test_masked_against_plain_and_the_combined_score(world, tmp_path):
    folder, features = world
    parts = Parts([], dict.fromkeys(("all", "masked", "plain"), folder / "north"))
    found = PROTOCOLS["mfr"].run(parts, computed_features(tmp_path), Options([0.1]))
    assert list(found) == ["ALL", "mask", "combined"]
    names = [n for n in features if n.startswith("north")]
    pairs = [(a, b) for a in names for b in names]
    scores = np.array([features[a] @ features[b] for a, b in pairs])
    same = np.array([a.rsplit("/", 1)[0] == b.rsplit("/", 1)[0] for a, b in pairs])
    mask = found["mask"].metrics
    assert (mask["same"], mask["different"]) == (same.sum(), (~same).sum())
    barrier = np.sort(scores[~same])[::-1][int(0.1 * (~same).sum())]
    tar = mask["tar_at_far"][0]["strict"]["tar"]
    assert tar == np.mean(scores[same] > barrier + 1e-6)
    whole = found["ALL"].metrics["tar_at_far"][0]["strict"]["tar"]
    assert found["combined"].metrics["combined"] == pytest.approx(0.25 * tar + 0.75 * whole)
    assert "%" in PROTOCOLS["mfr"].row(found["combined"].metrics)["0.25 mask + 0.75 ALL"]


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


def test_the_papers_numbers_need_the_papers_data():
    tars = [{"far": 1e-6, "strict": {"tar": 0.5}}]
    everyone = {"images": 1_624_305, "identities": 242_143, "tar_at_far": tars}
    assert paper.comparable("mfr", "ALL", everyone) == {paper.MR_ALL: 50}
    assert paper.comparable("mfr", "ALL", {**everyone, "images": 400}) == {}
    mega = {
        "identities": 80,
        "identification": [{"distractors": 1_000_000, "rank": {"1": 0.75}}],
        "verification": {"tar_at_far": tars},
    }
    expected = {paper.MEGAFACE_ID: 75, paper.MEGAFACE_VER: 50}
    assert paper.comparable("megaface", "raw", mega) == expected
