"""Lists of pairs, as LFW's site, spreadsheets and scripts write them."""

import unicodedata

import pytest

from uniface_jax.data.formats.pair_lists import (
    Finder,
    find_images,
    likely_roots,
    read_pair_lines,
)
from uniface_jax.errors import UserError

PLAIN = [(("a/1.png",), ("a/2.png",)), (("a/1.png",), ("b/1.png",))]


def read(tmp_path, content, name="pairs.csv"):
    file = tmp_path / name
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_pair_lines(file)


@pytest.mark.parametrize(
    "text",
    [
        "a/1.png,a/2.png,1\na/1.png,b/1.png,0\n",
        "a/1.png,a/2.png,1\r\n\r\na/1.png,b/1.png,0\r\n",
        "first,second,same\na/1.png,a/2.png,Yes\na/1.png,b/1.png,No\n",
        "Image 1;Image 2;Is same\na/1.png;a/2.png;TRUE\na/1.png;b/1.png;FALSE\n",
        "a/1.png\ta/2.png\tsame\na/1.png\tb/1.png\tdifferent\n",
        "# mine\na/1.png a/2.png 1.0\na/1.png b/1.png -1\n",
        "1 a/1.png a/2.png\n0 a/1.png b/1.png\n",
        "label,id,path_a,path_b\n1,7,a/1.png,a/2.png\n0,8,a/1.png,b/1.png\n",
        '"a/1.png", "a/2.png", "true"\n"a/1.png", "b/1.png", "f",,\n',
        b"\xef\xbb\xbfa/1.png,a/2.png,y\na/1.png,b/1.png,n\n",
        "a/1.png,a/2.png,1\na/1.png,b/1.png,0\n".encode("utf-16"),
    ],
)
def test_tables_of_two_files_and_a_mark(tmp_path, text):
    listed = read(tmp_path, text)
    assert list(listed.sides) == PLAIN
    assert listed.same.tolist() == [True, False]


@pytest.mark.parametrize(
    "text",
    [
        "1\t1\nAnn Lee\t1\t12\nAnn Lee\t1\tBob\t2\n",
        "1\nAnn_Lee 1 12\nAnn_Lee 1 Bob 2\n",
        "name,imagenum1,imagenum2,\nAnn Lee,1,12,\nAnn Lee,1,Bob,2\n",
    ],
)
def test_lfw_by_names_and_numbers(tmp_path, text):
    listed = read(tmp_path, text, "pairs.txt")
    name = "Ann_Lee" if "Ann_Lee" in text else "Ann Lee"
    (same, different) = listed.sides
    assert same[0][0] == f"{name}/{name}_0001"
    assert same[1][0] == f"{name}/{name}_0012"
    assert different[1][:2] == ("Bob/Bob_0002", "Bob/2")
    assert listed.same.tolist() == [True, False]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a.png,b.png,maybe\n", r"line 1: 'a\.png,b\.png,maybe'; expected first,second,same"),
        ("a.png,b.png,1\na.png,b.png\n", r"line 2: .*taken for 2 columns\)"),
        (
            "first,second,same\na.png,b.png,2\n",
            r"line 2: .*by the heading \[1, 2, 3\]",
        ),
        ("ann 1 2\nann 1 bob\n", "line 2: 'ann,1,bob'"),
        ("first,second,same\n", "no pairs"),
        ("", "no pairs"),
        ("a\0b,c,1\n", "line 1: a NUL byte"),
        ("x" * 9000, "line 1: longer than 8192 bytes"),
        ('"a.png,b.png,1\n', "line 1: "),
    ],
)
def test_other_lines_are_named_with_their_columns(tmp_path, text, message):
    with pytest.raises(UserError, match=message) as error:
        read(tmp_path, text)
    assert str(tmp_path / "pairs.csv") in str(error.value)


def make(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def test_images_are_found_with_another_suffix_form_or_separator(tmp_path):
    composed = unicodedata.normalize("NFC", "Zoë")
    apart = unicodedata.normalize("NFD", "Zoë")
    make(tmp_path, "a/1.png", "a/2.jpg.png", "a/2.jpeg.png", f"{apart}/é.png", "b/x.PNG", "b/y")
    finder = Finder(tmp_path)
    assert finder.find(["a/1.jpg"]) == "a/1.png"
    assert finder.find(["a/2.jpg"]) == "a/2.jpg.png"
    assert finder.find([f"{composed}/é.jpg"]) == f"{apart}/é.png"
    assert finder.find(["c/1", "b/x"]) == "b/x.PNG"
    assert finder.find([r"a\1.png"]) == "a/1.png"
    assert finder.find(["./a/../a/1.png"]) == "a/../a/1.png"
    assert finder.find([str(tmp_path / "b" / "y")]) == str(tmp_path / "b" / "y")
    assert [finder.find([name]) for name in ("a", "a/3.png", "z" * 300 + "/1", "../x")] == [
        None
    ] * 4
    make(tmp_path, "a/1.jpeg")
    with pytest.raises(UserError, match=r"1\.jpeg and 1\.png differ in the suffix alone"):
        Finder(tmp_path).find(["a/1.jpg"])


def test_the_folder_of_the_images_is_the_list_s_or_one_beside_it(tmp_path):
    listed = read(tmp_path, "a 1 2\na 1 b 1\n", "pairs.txt")
    file = tmp_path / "pairs.txt"
    with pytest.raises(UserError, match=r"line 1: .*a_0001: no such image; looked in"):
        find_images(file, listed, likely_roots(file))
    make(tmp_path / "faces", "a/a_0001.jpg", "a/a_0002.jpg", "b/b_0001.png")
    expected = [("a/a_0001.jpg", "a/a_0002.jpg"), ("a/a_0001.jpg", "b/b_0001.png")]
    assert find_images(file, listed, likely_roots(file)) == (tmp_path / "faces", expected)
    make(tmp_path / "other" / "train", "a/1.png", "a/2.png")
    others = [tmp_path / "other" / "train", tmp_path / "absent"]
    with pytest.raises(UserError, match=r"line 2: .*train/b/b_0001: no such image$"):
        find_images(file, listed, likely_roots(file, others))
