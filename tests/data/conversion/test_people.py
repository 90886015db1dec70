"""People held out: disjoint, seeded, of two images or more."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.examples import examples
from uniface_jax.data.conversion.people import ChosenPeople, held_out, labels_of
from uniface_jax.data.sources.folders import FolderSource
from uniface_jax.errors import UserError


@examples(60)
@given(st.lists(st.integers(0, 9), min_size=25, max_size=60), st.integers(0, 2**32 - 1))
def test_those_held_out_have_two_images(labels, seed):
    able = {label for label in labels if labels.count(label) > 1}
    people = min(len(able), 4)
    chosen = held_out(np.array(labels), 10, people, seed)
    assert chosen == held_out(np.array(labels), 10, people, seed) == sorted(set(chosen))
    assert len(chosen) == people
    assert set(chosen) <= able


def test_seeds_choose_others_and_too_many_are_refused():
    labels = np.repeat(np.arange(20), 2)
    assert len({tuple(held_out(labels, 20, 5, seed)) for seed in range(10)}) > 5
    for people in (20, 21):
        with pytest.raises(UserError, match=rf"--people={people}: expected 1 to 19, of 20 people"):
            held_out(labels, 20, people, 0)


def test_the_chosen_are_numbered_anew(faces):
    source = FolderSource(faces)
    part = ChosenPeople(source, labels_of(source), [0, 2])
    assert part.class_names == ["s1", "s10"]
    names = [source.item_name(i) for i in range(len(source))]
    assert [item.name for item in part] == [n for n in names if not n.startswith("s2/")]
    assert [item.label for item in part] == labels_of(part).tolist()
    assert part.sizes(np.arange(2)).tolist() == [len(part[0].image), len(part[1].image)]
    assert part.fingerprint() != source.fingerprint()


def test_the_command_splits_and_never_mixes_splits(faces, tmp_path, run_cli):
    done = run_cli("hold_out", faces, tmp_path / "split", "--people=1")
    assert done.returncode == 0, done.stderr
    train, held = (FolderSource(tmp_path / "split" / name) for name in ("train", "held_out"))
    assert set(train.class_names).isdisjoint(held.class_names)
    assert {*train.class_names, *held.class_names} == {"s1", "s2", "s10"}
    assert len(train) + len(held) == 23
    assert held[0].image == (faces / held[0].name).read_bytes()
    before = held.class_names
    for seed in range(1, 20):
        done = run_cli("hold_out", faces, tmp_path / "split", "--people=1", f"--seed={seed}")
        if done.returncode:
            break
    assert done.returncode == 2
    assert "holds other people already" in done.stderr
    assert FolderSource(tmp_path / "split" / "held_out").class_names == before
