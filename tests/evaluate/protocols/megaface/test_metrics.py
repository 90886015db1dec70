"""MegaFace against its definition, written plainly."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.exact_scores import ONE_DEVICE, signs, strict, unit_scores
from uniface_jax.errors import UserError
from uniface_jax.evaluate.all_pairs.engine import Targets
from uniface_jax.evaluate.all_pairs.tiles import LabeledFeatures
from uniface_jax.evaluate.protocols.megaface.metrics import (
    Challenge,
    Clean,
    identification_ranks,
    megaface,
    megaface_metrics,
    megaface_runs,
)
from uniface_jax.evaluate.protocols.megaface.noise_lists import clean_rows, read_noise_list


@given(
    seed=st.integers(0, 2**32 - 1),
    probes=st.integers(2, 40),
    distractors=st.integers(1, 60),
)
def test_ranks(seed, probes, distractors):
    rng = np.random.default_rng(seed)
    features, others = signs(rng, probes), signs(rng, distractors)
    labels = rng.integers(0, 1 + probes // 3, probes)
    sizes = sorted({1, (distractors + 1) // 2, distractors})
    ranks = identification_ranks(LabeledFeatures(features, labels), others, sizes, seed=3)
    order = np.random.default_rng(3).permutation(distractors)
    own, cross = unit_scores(features, features), unit_scores(features, others)
    for size, of_size in zip(sizes, ranks, strict=True):
        expected = [
            1 + sum(cross[query, d] >= own[query, mate] for d in order[:size])
            for query in range(probes)
            for mate in range(probes)
            if query != mate and labels[query] == labels[mate]
        ]
        assert sorted(of_size) == sorted(expected)


def test_megaface_end_to_end(tmp_path):
    rng = np.random.default_rng(0)
    probes, others = signs(rng, 40), signs(rng, 300)
    labels = np.arange(40) // 4
    names = [f"Some Person/Some_Person_{n}.jpg" for n in range(40)]
    other_names = [f"megaface/10{n % 3}/12@N01/9_{n}.png" for n in range(300)]
    probe_list, other_list = tmp_path / "facescrub.txt", tmp_path / "megaface.txt"
    probe_list.write_text("# noisy\nSome_Person_3.png\nSome_Person_17.png\nNobody_1.png\n")
    other_list.write_text("# noisy\n1\t100/12@N01/9_0.jpg\n2\t101/12@N01/9_1.jpg\n0/0/0.jpg\n")
    noise = read_noise_list(probe_list), read_noise_list(other_list)
    kept, others_kept = clean_rows(names, noise[0]), clean_rows(other_names, noise[1])
    assert np.flatnonzero(~kept).tolist() == [3, 17]
    assert np.flatnonzero(~others_kept).tolist() == [0, 1]
    runs = megaface_runs(
        LabeledFeatures(probes, labels),
        others,
        Clean(kept, others_kept),
        challenge=Challenge((10, 100, 1000), pairs=Targets((0.1,))),
        tiling=ONE_DEVICE,
    )
    assert list(runs) == ["raw", "refined"]
    for name, rows, columns in (
        ("raw", np.arange(40), np.arange(300)),
        ("refined", np.flatnonzero(kept), np.flatnonzero(others_kept)),
    ):
        result = runs[name]
        own = unit_scores(probes[rows], probes[rows])
        i, j = np.triu_indices(len(rows), 1)
        same = labels[rows][i] == labels[rows][j]
        cross = unit_scores(probes[rows], others[columns]).ravel()
        scores = np.append(own[i, j][same], cross)
        kinds = np.arange(len(scores)) < same.sum()
        assert [p.strict for p in result.verification.points] == strict(scores, kinds, (0.1,))
        hard = result.verification.hardest_different
        assert np.array_equal(
            hard.scores, [unit_scores(probes[[a]], others[[b]])[0, 0]
                          for a, b in zip(hard.first, hard.second, strict=True)]
        )  # fmt: skip
        ranks = identification_ranks(
            LabeledFeatures(probes[rows], labels[rows]), others[columns], [10, 100, len(columns)]
        )
        metrics = megaface_metrics(result)
        assert [row["distractors"] for row in metrics["identification"]] == [10, 100, len(columns)]
        for row, of_size in zip(metrics["identification"], ranks, strict=True):
            assert row["rank"]["1"] == np.mean(of_size == 1)
            assert row["rank"]["5"] == np.mean(of_size <= 5)


def test_bad_megaface_input():
    features = np.eye(4)
    with pytest.raises(UserError, match="no two of the 4 probes"):
        megaface(LabeledFeatures(features, np.arange(4)), features)
    probes = LabeledFeatures(features, np.arange(4) // 2)
    with pytest.raises(UserError, match="0 distractors; expected at least 1"):
        megaface(probes, features, challenge=Challenge(sizes=(0,)))
