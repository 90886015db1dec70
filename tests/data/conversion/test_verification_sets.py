"""Verification sets: what is drawn, and that .bin, CSV and lists are the same pairs."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.examples import examples
from uniface_jax.data.conversion.verification_sets import (
    _TRIES,
    _different,
    _distinct,
    _pair_of,
    draw_pairs,
)
from uniface_jax.data.formats.bin_pairs import read_pairs
from uniface_jax.data.formats.images import encode_png
from uniface_jax.data.formats.pair_lists import find_images, read_pair_lines
from uniface_jax.errors import UserError


@examples(60)
@given(
    st.lists(st.integers(0, 7), min_size=30, max_size=50),
    st.integers(10, 400),
    st.integers(0, 2**32 - 1),
)
def test_pairs_are_what_they_say_and_balanced(labels, count, seed):
    labels = np.array([*labels, *[*range(8)] * 3])
    first, second, same = draw_pairs(labels, count, seed)
    assert (first < second).all()
    assert len(set(zip(first.tolist(), second.tolist(), strict=True))) == len(same) <= count
    assert (same == (labels[first] == labels[second])).all()
    assert same.sum() * 2 == len(same)
    shares = [fold.sum() for fold in np.array_split(same, 10)]
    assert max(shares) - min(shares) <= 2
    again = draw_pairs(labels, count, seed)
    assert all((a == b).all() for a, b in zip((first, second, same), again, strict=True))


def test_too_few_are_refused():
    with pytest.raises(UserError, match="4 images of 2 people: 2 pairs of one person and 4"):
        draw_pairs(np.array([0, 0, 1, 1]), 100, 0)


def test_places_are_those_of_all_pairs():
    assert [_pair_of(place) for place in range(6)] == [
        (0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3),
    ]  # fmt: skip
    large = 10**12
    first, second = _pair_of(large)
    assert first < second
    assert second * (second - 1) // 2 + first == large


def test_sets_too_large_to_be_listed():
    random = np.random.RandomState(0)
    assert len(set(_distinct(random, 1 << 40, 1000).tolist())) == 1000
    labels = np.repeat(np.arange(1000), 3)
    pairs = _different(random, labels, 5000, len(labels) * (len(labels) - 1) // 2)
    assert len(set(pairs)) == 5000
    assert all(labels[a] != labels[b] and a < b for a, b in pairs)
    with pytest.raises(UserError, match="0 of 5 pairs of different people"):
        _different(random, np.zeros(2000, int), 5, 1 << 21)
    assert _TRIES > 1


@pytest.fixture
def people(tmp_path):
    """Four people of four images of 112x112."""
    random = np.random.RandomState(3)
    for i in range(16):
        file = tmp_path / "faces" / f"p{i // 4}" / f"{i % 4}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(encode_png(random.randint(0, 256, (112, 112, 3), np.uint8)))
    return tmp_path / "faces"


def contents(path):
    pairs = read_pairs(path)
    sides = [
        (pairs.images[a], pairs.images[b]) for a, b in zip(pairs.first, pairs.second, strict=True)
    ]
    return sides, pairs.same.tolist()


def test_the_command_writes_bin_and_csv_of_the_same_pairs(people, tmp_path, run_cli):
    for name in ("a.bin", "a.csv"):
        done = run_cli("make_pairs", people, tmp_path / name, "--pairs=40", "--seed=7")
        assert done.returncode == 0, done.stderr
        assert "40 pairs, 20 of one person, of 16 images" in done.stdout
    listed = read_pair_lines(tmp_path / "a.csv")
    root, names = find_images(tmp_path / "a.csv", listed, [people])
    files = [((root / a).read_bytes(), (root / b).read_bytes()) for a, b in names]
    assert contents(tmp_path / "a.bin") == (files, listed.same.tolist())
    done = run_cli("make_pairs", tmp_path / "a.csv", tmp_path / "b.bin")  # faces/ lies beside it
    assert done.returncode == 0, done.stderr
    assert contents(tmp_path / "b.bin") == contents(tmp_path / "a.bin")


def test_what_cannot_be_written_is_named(people, tmp_path, run_cli):
    (people / "p0" / "0.png").write_bytes(encode_png(np.zeros((8, 8, 3), np.uint8)))
    for arguments, message in (
        ((people, tmp_path / "a.npz"), "expected a name that ends in .bin or .csv"),
        ((people, tmp_path / "a.bin"), "p0/0.png: 8x8 pixels, expected 112x112"),
        ((people, tmp_path / "a.bin", "--root=x"), "--root: for a list of pairs"),
        (("synthetic:4:40", tmp_path / "a.csv"), "are no files; write a .bin"),
    ):
        done = run_cli("make_pairs", *arguments)
        assert done.returncode == 2
        assert message in done.stderr
    assert not list(tmp_path.glob("a.*"))
