import os
import shutil
import unicodedata

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.examples import examples
from uniface_jax.data.sources.lists import ListSource
from uniface_jax.data.sources.opening import open_source
from uniface_jax.errors import UserError


@pytest.fixture
def folder(faces, tmp_path):
    return shutil.copytree(faces, tmp_path / "faces")


@pytest.mark.parametrize("gap", [" ", "\t", "  "])
def test_paths_and_numbers(folder, gap):
    list_file = folder / "list.txt"
    rows = [("s1/1.jpg", 7), ("s2/2.png", 12), ("s10/3.jpg", 7)]
    text = "# path label\n\n" + "".join(f"{path}{gap}{label}\n" for path, label in rows)
    list_file.write_text(text)
    source = open_source(list_file)
    assert isinstance(source, ListSource)
    assert [(item.name, item.label) for item in source] == [
        ("s1/1.jpg", 0), ("s2/2.png", 1), ("s10/3.jpg", 0),
    ]  # fmt: skip
    assert (source.num_classes, source.class_names) == (2, ["7", "12"])
    assert source[1].image == (folder / "s2" / "2.png").read_bytes()


def test_im2rec_lists_and_paths_with_blanks(folder):
    (folder / "s1" / "a b.png").write_bytes((folder / "s1" / "2.png").read_bytes())
    (folder / "train.lst").write_text("35\t1.000000\ts1/a b.png\n0\t0.000000\ts2/1.jpg\n")
    source = open_source(folder / "train.lst")
    assert [(item.name, item.label) for item in source] == [("s1/a b.png", 1), ("s2/1.jpg", 0)]
    assert source.class_names is None
    (folder / "train.lst").write_text("s1/a b.png ann\n")
    assert open_source(folder / "train.lst")[0].name == "s1/a b.png"


def test_labels_by_name_in_natural_order(folder):
    (folder / "list").write_text("s1/1.jpg\tp10\ns1/2.png\tp9\ns1/3.jpg\tp10\n")
    source = open_source(folder / "list")
    assert [item.label for item in source] == [1, 0, 1]
    assert source.class_names == ["p9", "p10"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a.png 1\nb.png\n", r"line 2: 'b\.png', expected a path and a label"),
        ("a.png\t1\t2\t3\n", "line 1: .*, expected a path and a label, or key, label and path"),
        ("a.png 1\n\t\n \tx\n", r"line 3: ' \\tx', expected a path"),
        ("a 1\n" + "x" * 9000, "line 2: longer than"),
        ("", "not a known format"),
    ],
)
def test_malformed_lists_are_named(tmp_path, text, message):
    file = tmp_path / "list.txt"
    file.write_text(text)
    with pytest.raises(UserError, match=message) as error:
        open_source(file)
    assert str(file) in str(error.value)


def test_unreadable_texts_and_images(tmp_path):
    (tmp_path / "list").write_bytes(b"\xff\xfea\0.")
    with pytest.raises(UserError, match="not a known format"):
        open_source(tmp_path / "list")
    with pytest.raises(UserError, match="line 1: not the text that its mark says"):
        ListSource(tmp_path / "list")
    (tmp_path / "list").write_text("# nothing\n")
    with pytest.raises(UserError, match="an empty list"):
        ListSource(tmp_path / "list")
    (tmp_path / "list").write_text("absent.png 1\n")
    with pytest.raises(UserError, match=r"absent\.png: cannot be read"):
        open_source(tmp_path / "list")[0]


def test_paths_that_are_no_files(tmp_path):
    (tmp_path / "list").write_text(f"/dev/zero 1\n{'x' * 300} 2\na 3\n{'9' * 5000}\t4\n")
    with pytest.raises(UserError, match=r"line 4: '9999.*, expected a path"):
        ListSource(tmp_path / "list")
    (tmp_path / "list").write_text(f"/dev/zero {'9' * 5000}\n{'x' * 300} 8{'9' * 5000}\n")
    source = ListSource(tmp_path / "list")
    assert source.class_names == ["8" + "9" * 5000, "9" * 5000][::-1]
    with pytest.raises(UserError, match="/dev/zero: not a file"):
        source[0]
    with pytest.raises(UserError, match="xxx: cannot be read"):
        source[1]


ROWS = [("s1/1.jpg", 4), ("s1/2.png", 4), ("s2/1.jpg", 9)]


@pytest.mark.parametrize(
    ("form", "columns"),
    [
        ("{i}\t{path}\t{label}", "index, path, label, separated by tabs"),
        ("1\t{path}\t{label}.0", "index, path, label, separated by tabs"),
        ("{i} {path} {label}", "index, path, label, separated by blanks"),
        ("{i} {label} {path}", "key, label, path, separated by blanks"),
        ("{i}  {label}.000000   {path}", "key, label, path, separated by blanks"),
        ("{i}\t{label}\t0.5\t{path}", "key, label, path and 1 more, separated by tabs"),
        ("1\t{path}\t{label}" + "\t1.5" * 10, "index, path, label and 10 more, separated by tabs"),
        ("1 {path} {label}" + " 7.25" * 14, "index, path, label and 14 more, separated by blanks"),
        ("{label}\t{path}", "label, path, separated by tabs"),
        ("{label} {path}", "label, path, separated by blanks"),
        ("{path},{label}", "path, label, separated by commas"),
        ('"{path}", "{label}"', "path, label, separated by commas"),
        ("{i},{path},{label}", "index, path, label, separated by commas"),
    ],
)
@pytest.mark.parametrize("before", ["", "image_id\tclass\n", "some,heading\n", "# a comment\n\n"])
def test_columns_are_told_by_the_images(folder, form, columns, before):
    lines = [form.format(i=i, path=path, label=label) for i, (path, label) in enumerate(ROWS)]
    (folder / "list.lst").write_bytes((before + "\r\n".join(lines)).encode())
    source = open_source(folder / "list.lst")
    assert [(item.name, item.label) for item in source] == [
        ("s1/1.jpg", 0), ("s1/2.png", 0), ("s2/1.jpg", 1),
    ]  # fmt: skip
    assert source.class_names == ["4", "9"]
    assert ("is a heading" in " ".join(source.notes)) == ("\t" in before or "," in before)
    (folder / "s1" / "2.png").unlink()
    number = 2 + before.count("\n")
    with pytest.raises(
        UserError, match=rf"line {number}, taken for {columns}: .*s1/2\.png: cannot"
    ):
        source[1]


def test_files_of_which_none_is_there_are_told_by_their_suffixes(tmp_path):
    (tmp_path / "list").write_text("12 monkeys.jpg 5\n")
    assert open_source(tmp_path / "list").part(np.arange(1))._names == ["monkeys.jpg"]
    (tmp_path / "12 monkeys.jpg").touch()
    assert open_source(tmp_path / "list").part(np.arange(1))._names == ["12 monkeys.jpg"]
    (tmp_path / "list").write_text("7\t0.0\ta\n")
    assert open_source(tmp_path / "list").part(np.arange(1))._names == ["a"]


def test_a_line_of_another_form_says_what_the_first_one_has(folder):
    (folder / "list").write_text("0\ts1/1.jpg\t4\n1\ts1/2.png\n")
    with pytest.raises(UserError, match=r"line 2: .*the first line has index, path, label, sep"):
        open_source(folder / "list")
    (folder / "list").write_text("s1/1.jpg 4\ns1/2.png\t4\n")
    assert len(open_source(folder / "list")) == 2


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "latin-1"])
def test_marks_and_names_in_any_encoding(folder, encoding):
    name = "s1/é.png".encode("latin-1" if encoding == "latin-1" else "utf-8")
    (folder / "s1" / "2.png").rename(os.fsdecode(os.fsencode(folder) + b"/" + name))
    (folder / "list.txt").write_bytes("s1/é.png 0\r\ns2/1.jpg 1\r\n".encode(encoding))
    source = open_source(folder / "list.txt")
    assert os.fsencode(source[0].name) == name
    assert [item.label for item in source] == [0, 1]


def test_names_in_the_other_unicode_form(folder):
    apart, composed = (unicodedata.normalize(form, "Zoë") for form in ("NFD", "NFC"))
    (folder / "s1").rename(folder / apart)
    (folder / apart / "2.png").rename(folder / apart / f"{composed}.png")
    (folder / "list.txt").write_text(f"{composed}/1.jpg 0\n{composed}/{apart}.png 1\n")
    source = open_source(folder / "list.txt")
    assert source[1].image == (folder / apart / f"{composed}.png").read_bytes()
    assert source.sizes(np.arange(2)).min() > 0


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    return tmp_path_factory.mktemp("mutated") / "list"


@examples(200)
@given(st.one_of(st.binary(max_size=60), st.text("ab1.9e\t \n#-é\0", max_size=40).map(str.encode)))
def test_noise_raises_nothing_but_user_errors(scratch, content):
    scratch.write_bytes(content)
    message = f"{scratch}: none"
    try:
        assert len(open_source(scratch)) > 0
    except UserError as e:
        message = str(e)
    assert message.startswith(f"{scratch}: ")
    assert "\n" not in message
