"""1:N identification against a plain count over all probes and thresholds."""

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from uniface_jax.evaluate.drawings import cmc_line, open_set_line
from uniface_jax.evaluate.metrics.identification import closed_set, ijb_evals, open_set, search

# Few different directions, in the plane, so that many scores are equal to the last bit.
ANGLES = st.integers(0, 5)
CASES = st.tuples(
    st.lists(ANGLES, min_size=1, max_size=6),
    st.lists(st.tuples(ANGLES, st.booleans()), min_size=1, max_size=25),
    st.integers(0, 2**32 - 1),
)


def unit(angles):
    table = np.array([[1, 0], [0, 1], [-1, 0], [0.6, 0.8], [0.8, 0.6], [-0.6, 0.8]])
    return table[np.array(angles)]


def prepared(case):
    gallery, probes, seed = case
    mates = np.random.default_rng(seed).integers(0, len(gallery), len(probes))
    mates[~np.array([known for _, known in probes])] = -1
    return unit(gallery), unit([angle for angle, _ in probes]), mates


def oracle(gallery, probes, mates):
    """(ranks, mate scores, best scores of unknown probes), a probe after another."""
    ranks, scores, best = [], [], []
    for probe, mate in zip(probes, mates, strict=True):
        found = [probe[0] * g[0] + probe[1] * g[1] for g in gallery]
        if mate < 0:
            best.append(max(found))
            continue
        others = [s for i, s in enumerate(found) if i != mate]
        ranks.append(1 + sum(s >= found[mate] - 1e-12 for s in others))
        scores.append(found[mate])
    return ranks, scores, best


@given(CASES)
def test_ranks_and_rates_are_those_of_a_plain_count(case):
    gallery, probes, mates = prepared(case)
    found = search(gallery, probes, mates)
    ranks, scores, best = oracle(gallery, probes, mates)
    assert found.ranks.tolist() == ranks
    np.testing.assert_allclose(found.mate_scores, scores, atol=1e-12)
    np.testing.assert_allclose(found.best_scores, best, atol=1e-12)
    closed = closed_set(found, (1, 2, 5))
    assert closed["mated"] == len(ranks)
    for entry in closed["ranks"]:
        assert entry["hits"] == sum(rank <= entry["rank"] for rank in ranks)
        assert entry["rate"] == (entry["hits"] / len(ranks) if ranks else None)
    if ranks:
        line = cmc_line(found)
        assert line["rates"][-1] == 1
        assert math.isclose(line["rates"][0], ranks.count(1) / len(ranks), rel_tol=1e-5)


@given(CASES, st.sampled_from([0.01, 0.1, 0.25, 1 / 3, 0.5, 1.0]))
def test_tpir_is_the_best_of_all_thresholds(case, target):
    gallery, probes, mates = prepared(case)
    found = search(gallery, probes, mates)
    (entry,) = open_set(found, [target])
    first = found.mate_scores[found.ranks == 1]
    unknown = found.best_scores
    possible = [math.inf, *first, *unknown]
    allowed = [t for t in possible if not len(unknown) or np.mean(unknown >= t) <= target]
    lowest = min(allowed)
    assert entry["true_identifications"] == np.count_nonzero(first >= lowest)
    assert entry["false_identifications"] == np.count_nonzero(unknown >= lowest)
    assert entry["threshold"] == (None if math.isinf(lowest) else lowest)
    assert entry["fpir"] is None or entry["fpir"] <= target
    assert entry["resolvable"] == bool(len(unknown) and 1 / len(unknown) <= target)


def test_equal_scores_everywhere_are_no_identification():
    same = np.tile([[0.6, 0.8]], (4, 1))
    found = search(same, np.tile(same[:1], (3, 1)), np.array([0, 3, -1]))
    assert found.ranks.tolist() == [4, 4]
    (entry,) = open_set(found, [0.1])
    assert (entry["tpir"], entry["fpir"], entry["threshold"]) == (0, 0, None)


def test_blocks_do_not_matter_and_the_open_set_line_agrees_with_its_points():
    rng = np.random.default_rng(0)
    subjects = rng.standard_normal((40, 16))
    of = rng.integers(0, 60, 3000)
    probes = subjects[of % 40] * (of < 40)[:, None] + 1.5 * rng.standard_normal((3000, 16))
    probes /= np.linalg.norm(probes, axis=1, keepdims=True)
    gallery = subjects / np.linalg.norm(subjects, axis=1, keepdims=True)
    mates = np.where(of < 40, of, -1)
    found = search(gallery, probes, mates)
    ranks, _, best = oracle_matrix(gallery, probes, mates)
    np.testing.assert_array_equal(found.ranks, ranks)
    np.testing.assert_allclose(found.best_scores, best, atol=1e-12)
    line = open_set_line(found)
    points = open_set(found, [1.00001 * fpir for fpir in line["fpir"]])  # they are rounded
    np.testing.assert_allclose(line["tpir"], [p["tpir"] for p in points], atol=2e-3)
    assert 0 < line["tpir"][0] < line["tpir"][-1]


def oracle_matrix(gallery, probes, mates):
    scores = probes @ gallery.T
    known = mates >= 0
    own = scores[known, mates[known]]
    return (scores[known] >= own[:, None]).sum(axis=1), own, scores[~known].max(axis=1)


SCORE = st.integers(-3, 3).map(lambda quarter: quarter / 4)


@given(
    st.integers(1, 5).flatmap(
        lambda size: st.lists(
            st.tuples(st.lists(SCORE, min_size=size, max_size=size), st.integers(-1, size - 1)),
            min_size=1,
            max_size=12,
        )
    ),
    st.sampled_from([0.01, 0.1, 0.5, 1.0]),
)
def test_the_reading_of_ijb_evals(case, target):
    """Against the script's steps written as loops, on scores that a diagonal gallery gives."""
    rows, mates = np.array([row for row, _ in case]), np.array([mate for _, mate in case])
    found = search(np.eye(rows.shape[1]), rows, mates)
    read = ijb_evals(found, (1, 2), [target])
    mated, unknown = [], []
    for row, mate in case:
        if mate < 0:
            unknown.append(max(row))
            continue
        order = sorted(range(len(row)), key=lambda i: row[i])[::-1]  # equal ones: the later first
        others = [score for i, score in enumerate(row) if i != mate]
        mated.append((order.index(mate) + 1, row[mate], all(row[mate] > s for s in others)))
    hits = [sum(rank <= k for rank, *_ in mated) for k in (1, 2)]
    assert [entry["hits"] for entry in read["closed_set"]["ranks"]] == hits
    if not unknown:
        assert "open_set" not in read
        return
    barrier = sorted(unknown, reverse=True)[max(int(len(unknown) * target) - 1, 0)]
    (entry,) = read["open_set"]
    assert entry["true_identifications"] == sum(s > barrier and first for _, s, first in mated)
    assert entry["false_identifications"] == sum(score > barrier for score in unknown)
    assert entry["false_identifications"] <= max(int(len(unknown) * target) - 1, 0)
    definition = open_set(found, [target])[0]
    assert entry["true_identifications"] <= definition["true_identifications"]
