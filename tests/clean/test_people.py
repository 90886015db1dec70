import numpy as np
import pytest

from uniface_jax.clean import people as rooms
from uniface_jax.clean.people import best_others, group_people, groups_of, rows_by_label
from uniface_jax.clean.scale import Scale, estimate_scale
from uniface_jax.errors import UserError
from uniface_jax.evaluate.all_pairs.above import PairsFound


def faces(rng, people, each, spread=0.5, width=32):
    """Return unit features of `people` with `each` images, and their labels."""
    centers = rng.standard_normal((people, width))
    centers /= np.linalg.norm(centers, axis=1, keepdims=True)
    labels = np.repeat(np.arange(people), each)
    noise = rng.standard_normal((len(labels), width)) / np.sqrt(width)
    features = centers[labels] + spread * noise
    return features / np.linalg.norm(features, axis=1, keepdims=True), labels


def joined_one_by_one(units, threshold):
    """Join the two groups of greatest mean cosine until it is below the threshold."""
    groups = [[i] for i in range(len(units))]
    while len(groups) > 1:
        scores = {
            (a, b): np.mean([units[i] @ units[j] for i in groups[a] for j in groups[b]])
            for a in range(len(groups))
            for b in range(a)
        }
        (a, b), best = max(scores.items(), key=lambda entry: entry[1])
        if best < threshold:
            break
        groups[b] += groups.pop(a)
    return {frozenset(group) for group in groups}


@pytest.mark.parametrize("seed", range(4))
def test_groups_are_those_of_average_linkage(seed):
    rng = np.random.default_rng(seed)
    units, _ = faces(rng, 3, 5, spread=0.8)
    found = groups_of(units, 0.4)
    sets = {frozenset(np.flatnonzero(found == g).tolist()) for g in set(found.tolist())}
    assert sets == joined_one_by_one(units, 0.4)
    assert (np.diff(np.bincount(found)) <= 0).all()  # the largest first


def test_images_beyond_those_compared_join_their_group(monkeypatch):
    monkeypatch.setattr(rooms, "MAX_CLUSTERED", 20)
    units, _ = faces(np.random.default_rng(0), 2, 40)
    stray = -units[:1]
    found = groups_of(np.concatenate([units, stray]), 0.3)
    assert len(set(found[:40])) == len(set(found[40:80])) == 1
    assert len(set(found)) == 3


def test_own_scores_leave_the_image_itself_out():
    units, labels = faces(np.random.default_rng(1), 4, 6)
    labels = np.append(labels, 5)  # alone; and nobody has 4
    units = np.concatenate([units, units[:1]])
    found = group_people(units, labels, 6, 0.3)
    for i in range(24):
        others = [j for j in np.flatnonzero(labels == labels[i]) if j != i]
        assert found.own[i] == pytest.approx(np.mean(units[others] @ units[i]), abs=1e-6)
    assert np.isnan(found.own[24])
    assert found.sizes.tolist() == [6, 6, 6, 6, 0, 1]
    np.testing.assert_allclose(found.centers[0], units[:6].mean(0), atol=1e-6)


def test_rows_of_labels_without_images_are_not_there():
    found = {label: rows.tolist() for label, rows in rows_by_label(np.array([3, 0, 3]))}
    assert found == {0: [1], 3: [0, 2]}
    assert list(rows_by_label(np.empty(0, np.int64))) == []


def test_the_best_other_person_is_not_the_own_one():
    parts = [
        PairsFound(np.array([0, 0, 1]), np.array([2, 3, 1]), np.array([0.5, 0.4, 0.9], "f")),
        PairsFound(np.array([0, 0]), np.array([4, 5]), np.array([0.6, 0.99], "f")),
    ]
    person, score = best_others(iter(parts), np.array([5, 1]), 2)
    assert person.tolist() == [4, -1]
    assert score[0] == pytest.approx(0.6)


def test_the_scale_is_that_of_the_pairs_and_does_not_mind_wrong_labels():
    rng = np.random.default_rng(2)
    units, labels = faces(rng, 40, 10)
    wrong = labels.copy()
    wrong[rng.choice(400, 12)] = 0
    scale, clean = estimate_scale(units, wrong), estimate_scale(units, labels)
    cosines = units @ units.T
    same = labels[:, None] == labels
    assert clean.same_mean == pytest.approx(
        np.median(cosines[same & ~np.eye(400, dtype=bool)]), abs=0.01
    )
    assert clean.different_mean == pytest.approx(cosines[~same].mean(), abs=0.01)
    assert scale.same_mean == pytest.approx(clean.same_mean, abs=0.02)
    assert clean.different_mean < clean.threshold < clean.same_mean
    assert Scale(0.5, 0.1, 0.1, 0.1).threshold == pytest.approx(0.3)


@pytest.mark.parametrize("labels", [[0, 1, 2], [4, 4, 4]])
def test_a_set_without_pairs_of_both_kinds_is_refused(labels):
    with pytest.raises(UserError, match="no two images of"):
        estimate_scale(np.eye(3), np.array(labels))


def test_a_network_that_tells_nobody_apart_is_refused():
    noise = np.random.default_rng(0).standard_normal((60, 8))
    with pytest.raises(UserError, match="does not tell"):
        estimate_scale(noise, np.arange(60) % 6)
