"""Several sets as one: records, people and names, as they lie, in parts and in conversion."""

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from uniface_jax.data.formats.images import encode_png
from uniface_jax.data.sources.base import Item, Source
from uniface_jax.data.sources.joined import JoinedSource, members, quick_fingerprint
from uniface_jax.data.sources.opening import SourceOptions, open_source, split_training_sets
from uniface_jax.data.sources.synthetic import SyntheticSource
from uniface_jax.errors import UserError


class Named(Source):
    """Images of people by name: image k is of person k mod C."""

    def __init__(self, name, people, images, side=None):
        self.name, self.class_names, self.num_classes = name, people, len(people)
        self._images = images
        self.image_shape = side and (side, side, 3)

    def __len__(self):
        return self._images

    def __getitem__(self, index):
        if index >= self._images:
            raise IndexError(index)
        return Item(f"{self.name} {index}".encode(), index % self.num_classes, str(index))

    def fingerprint(self):
        return f"{self.name} {self._images}"


def test_people_are_joined_by_name_in_any_unicode_form():
    first = Named("a", ["ann", "Zoe\u0308"], 4)
    second = Named("b", ["Zo\u00eb", "bob", "ann"], 6)
    both = JoinedSource([first, second], "by_name")
    assert both.class_names == ["ann", "Zo\u00eb", "bob"]
    assert [item.label for item in both] == [0, 1, 0, 1, 1, 2, 0, 1, 2, 0]
    assert both.item_name(5) == both[5].name == "b/1"
    apart = JoinedSource([first, second])
    assert apart.class_names[2:] == ["b/Zo\u00eb", "b/bob", "b/ann"]
    assert [apart[index].label for index in (0, 3, 4, 9)] == [0, 1, 2, 4]
    assert both.fingerprint() != apart.fingerprint()


@given(
    st.lists(st.tuples(st.integers(1, 4), st.integers(0, 9)), min_size=2, max_size=4),
    st.data(),
)
def test_all_readings_agree_with_the_sets_one_after_the_other(shapes, data):
    sets = [
        Named(f"set{number}", [f"p{place}" for place in range(classes)], classes + more)
        for number, (classes, more) in enumerate(shapes)
    ]
    people = data.draw(st.sampled_from(["apart", "by_name"]))
    joined = pickle.loads(pickle.dumps(JoinedSource(sets, people)))
    plain, classes = [], 0
    for each in sets:
        shift = classes if people == "apart" else 0
        plain += [(item.image, item.label + shift, f"{each.name}/{item.name}") for item in each]
        classes += each.num_classes
    assert list(joined) == plain
    drawn = st.lists(st.integers(0, len(plain) - 1), max_size=12)
    indices = np.array(data.draw(drawn), np.int64)
    images, labels = joined.images(indices)
    part = joined.part(indices)
    np.testing.assert_array_equal(joined.classes(indices), labels)
    assert [plain[i][:2] for i in indices] == list(zip(images, labels.tolist(), strict=True))
    assert [part[place] for place in range(len(part))] == [plain[i] for i in indices]
    assert joined.sizes(indices).tolist() == [len(plain[i][0]) for i in indices]


def test_sets_that_do_not_fit_together():
    with pytest.raises(UserError, match=r"synthetic:2:8: the same set as synthetic:2:8"):
        open_source("synthetic:2:8,synthetic:2:8")
    with pytest.raises(UserError, match=r"c: images of \(96, 96, 3\), but b has \(112, 112, 3\)"):
        JoinedSource([Named("a", ["x"], 1), Named("b", ["x"], 1, 112), Named("c", ["x"], 1, 96)])
    with pytest.raises(UserError, match=r"synthetic:2:8: has no names of its people"):
        JoinedSource([Named("a", ["x"], 1), SyntheticSource(2, 8)], "by_name")
    with pytest.raises(UserError, match=r"b: has two people called 'x'"):
        JoinedSource([Named("a", ["x"], 1), Named("b", ["x", "y", "x"], 3)], "by_name")
    numbers = JoinedSource([Named("a", ["1"], 1), Named("b", ["1", "2"], 3)], "by_name")
    assert "by names that are all numbers" in numbers.notes[0]


def test_a_copy_of_a_set_is_the_same_set(tmp_path):
    for folder in ("one", "two"):
        (tmp_path / folder / "ann").mkdir(parents=True)
        (tmp_path / folder / "ann" / "1.png").write_bytes(encode_png(np.zeros((8, 8, 3), np.uint8)))
    with pytest.raises(UserError, match=r"two: the same set as .*one; name each set once"):
        open_source(f"{tmp_path}/one,{tmp_path}/two")


def test_a_label_out_of_range_names_its_set():
    class Wrong(Named):
        def __getitem__(self, index):
            return super().__getitem__(index)._replace(label=7)

    joined = JoinedSource([Named("a", ["x"], 2), Wrong("b", ["y"], 2)])
    with pytest.raises(UserError, match=r"b: record 1 has the label 7, expected 0..0"):
        joined.images(np.array([0, 3]))
    with pytest.raises(UserError, match=r"b: record 0 has the label 7"):
        joined[2]
    assert joined.part(np.array([2]))[0].label == -1


def test_names_of_sets_in_a_text(tmp_path):
    (tmp_path / "a,b").mkdir()
    text = f"{tmp_path}/a,b,synthetic:2:4,{{x,y}}-*.tar"
    assert split_training_sets(text) == [f"{tmp_path}/a,b", "synthetic:2:4", "{x,y}-*.tar"]
    both = open_source("synthetic:2:4,synthetic:3:6", SourceOptions())
    assert [each.name for each in members(both)] == ["synthetic:2:4", "synthetic:3:6"]
    assert members(both.sources[0]) == [both.sources[0]]
    assert both.reopens_quickly
    assert both.class_names is None
    assert quick_fingerprint(both.sources[0])
