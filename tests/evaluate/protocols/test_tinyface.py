"""TinyFace: the golden ranks, the fixtures' folders, a plain oracle, and what is refused."""

import hashlib
import shutil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.containers import EXPECTED, FOLDER
from tests.helpers.feature_sources import FixedFeatures, computed_features
from uniface_jax.errors import UserError
from uniface_jax.evaluate.arguments import Parts
from uniface_jax.evaluate.metrics.identification import Entries, closed_set, search_people
from uniface_jax.evaluate.protocols.base import Options
from uniface_jax.evaluate.protocols.tinyface import TINYFACE, run, tinyface_searches
from uniface_jax.evaluate.sets.tinyface_tree import read_tinyface

TREE = FOLDER / "tinyface"


def test_golden_ranks(golden2):
    data = {
        key.removeprefix("tinyface/"): value
        for key, value in golden2("protocols2").items()
        if key.startswith("tinyface/")
    }
    probe, match, distractor = (
        data[side] + data[f"{side}_flip"] for side in ("probe", "match", "distractor")
    )
    found = tinyface_searches(probe, match, distractor, data["probe_ids"], data["match_ids"])
    closed = closed_set(found, data["ranks"].tolist())
    rates = [entry["rate"] for entry in closed["ranks"]]
    np.testing.assert_allclose(rates, data["rates_exact"], rtol=1e-7)
    mated = data["first_mate_rank"] > 0
    np.testing.assert_array_equal(found.ranks, data["first_mate_rank"][mated])
    hits = [int(np.sum(data["first_mate_rank"][mated] <= k)) for k in data["ranks"]]
    assert [entry["hits"] for entry in closed["ranks"]] == hits


def test_the_folders_of_the_fixtures(tmp_path):
    expected = EXPECTED["tinyface"]
    found = read_tinyface(TREE)
    for images, side in (
        (found.probe, "Probe"), (found.match, "Gallery_Match"),
        (found.distractor, "Gallery_Distractor"),
    ):  # fmt: skip
        digests = {
            name: hashlib.sha256((images.root / name).read_bytes()).hexdigest()
            for name in images.names
        }
        assert digests == {entry["key"]: entry["sha256"] for entry in expected[side]}
    people = {entry["key"]: entry["label"] for entry in expected["Probe"]}
    assert found.probe_people.tolist() == [people[name] for name in found.probe.names]
    result = run(Parts([TREE]), computed_features(tmp_path), Options())["tinyface"]
    matches = {entry["label"] for entry in expected["Gallery_Match"]}
    mated = sum(label in matches for label in people.values())
    gallery = len(expected["Gallery_Match"]) + len(expected["Gallery_Distractor"])
    closed = result.metrics["closed_set"]
    assert result.metrics["without_mate"] == len(people) - mated
    assert (closed["mated"], closed["gallery"]) == (mated, gallery)
    assert TINYFACE.row(result.metrics)["rank 20"] == f"{closed['ranks'][2]['rate']:.2%}"
    assert result.uncertainty["intervals"]["ranks"][0]["rank"] == 1
    assert result.uncertainty["intervals"]["units"] == "people"


FEATURE = st.sampled_from([[1, 0], [0, 1], [3, 4], [-1, 0]])
SHOWN = st.lists(st.tuples(FEATURE, st.integers(0, 3)), min_size=1, max_size=9)


@given(SHOWN, SHOWN, st.integers(0, 4))
def test_ranks_are_those_of_plain_loops(probes, matches, strangers):
    """With ties, one person, probes without a mate, and no mated probe at all."""
    gallery = matches + [([4, 3], -100)] * strangers
    cosine = lambda a, b: np.float32(np.dot(a, b) / np.linalg.norm(a) / np.linalg.norm(b))  # noqa: E731
    ranks, best = [], []
    for feature, person in probes:
        mates = [cosine(feature, g) for g, p in gallery if p == person]
        others = [cosine(feature, g) for g, p in gallery if p != person]
        if mates:
            ranks.append(1 + sum(score >= max(mates) for score in others))
        else:
            best.append(max(others))
    features, people = (np.array(column) for column in zip(*gallery, strict=True))
    wanted, owners = (np.array(column) for column in zip(*probes, strict=True))
    found = search_people(Entries(features, np.ones(len(people), int), people), wanted, owners)
    assert found.ranks.tolist() == ranks
    np.testing.assert_array_equal(found.best_scores, best)


def test_entries_of_several_features_and_many_blocks(monkeypatch):
    """A person's score is that of the best feature, whatever the blocks."""
    monkeypatch.setattr("uniface_jax.evaluate.metrics.identification._BLOCK_ENTRIES", 5)
    monkeypatch.setattr("uniface_jax.evaluate.metrics.identification._BLOCK_PROBES", 4)
    rng = np.random.default_rng(3)
    sizes = rng.integers(1, 8, 9)
    features, probes = rng.normal(size=(sizes.sum(), 4)), rng.normal(size=(10, 4))
    people = rng.integers(0, 12, 10)
    found = search_people(Entries(features, sizes, np.arange(9)), probes, people)
    unit = lambda x: x / np.linalg.norm(x, axis=1, keepdims=True)  # noqa: E731
    scores = unit(probes) @ unit(features).T
    starts = np.cumsum(sizes) - sizes
    best = np.stack(
        [scores[:, s : s + n].max(axis=1) for s, n in zip(starts, sizes, strict=True)], 1
    )
    ranks = [1 + np.sum(best[q] > best[q, p]) for q, p in enumerate(people) if p < 9]
    assert found.ranks.tolist() == ranks
    np.testing.assert_allclose(found.best_scores, best[people >= 9].max(axis=1), rtol=1e-6)


def test_other_folders_are_refused(tmp_path):
    shutil.copytree(TREE, tmp_path / "t")
    root = tmp_path / "t"
    copies = root / "aligned_pad_0.1_pad_high"
    names = read_tinyface(copies).probe.names  # the copies alone are enough
    assert names == read_tinyface(root).probe.names
    with pytest.raises(UserError, match="none: no such folder; expected TinyFace's"):
        read_tinyface(root / "none")
    with pytest.raises(UserError, match="Probe: no such folder; expected Probe, Gallery_Match"):
        read_tinyface(tmp_path)
    with pytest.raises(UserError, match="2 folders for tinyface; expected one"):
        run(Parts([root, root]), FixedFeatures(None), Options())
    (copies / "Probe" / names[0]).unlink()
    missing = rf"{names[0]}: no such file \(1 of {len(names)} are missing\)"
    with pytest.raises(UserError, match=missing):
        read_tinyface(root)
    (copies / "Probe" / "x.jpg").touch()
    with pytest.raises(UserError, match=r"x\.jpg: no person's number and _ at the name's begin"):
        read_tinyface(copies)
    (root / "aligned_2" / "Probe").mkdir(parents=True)
    with pytest.raises(UserError, match=r"2 folders of aligned images .*say aligned=FOLDER"):
        read_tinyface(root)
    for file in (copies / "Gallery_Distractor").iterdir():
        file.unlink()
    with pytest.raises(UserError, match=r"Gallery_Distractor: no images"):
        read_tinyface(copies)


def test_no_probe_with_a_mate_is_refused():
    features = np.eye(3)
    with pytest.raises(UserError, match="none of 3 probes has a mate"):
        tinyface_searches(features, features, features, np.arange(3), np.arange(3, 6))
