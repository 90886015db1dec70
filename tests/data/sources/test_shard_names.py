import pytest

from uniface_jax.data.sources.opening import open_source
from uniface_jax.data.sources.shard_names import expand_shards, is_pattern
from uniface_jax.errors import UserError


def make(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True, parents=True)
        (folder / name).write_bytes(b"")


def names(folder, pattern):
    return [str(path.relative_to(folder)) for path in expand_shards(f"{folder}/{pattern}")]


def test_braces_count_and_take_turns(tmp_path):
    make(tmp_path, "s08.tar", "s09.tar", "s10.tar", "a/1.tar", "b/1.tar", "a/2.tar", "b/2.tar")
    assert names(tmp_path, "s{08..10}.tar") == ["s08.tar", "s09.tar", "s10.tar"]
    assert names(tmp_path, "{a,b}/{1..2}.tar") == ["a/1.tar", "a/2.tar", "b/1.tar", "b/2.tar"]


def test_stars_are_in_natural_order(tmp_path):
    make(tmp_path, "s9.tar", "s10.tar", "s2.tar", "other.txt")
    assert names(tmp_path, "s*.tar") == ["s2.tar", "s9.tar", "s10.tar"]
    assert names(tmp_path, "s[29].tar") == ["s2.tar", "s9.tar"]
    assert names(tmp_path, "{other,s1?}.*") == ["other.txt", "s10.tar"]


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("s{0..2}.tar", r"s2\.tar: no such file; .*names 3"),
        ("none*.tar", r"none\*\.tar: names no file"),
        ("s{0,0}.tar", "names a file twice"),
        ("s{2..1}.tar", r"\{2\.\.1\}: expected \{FIRST\.\.LAST\}"),
        ("s{0..999999999}.tar", r"expected \{FIRST\.\.LAST\}, below"),
        ("s{0..99999}{0..9}{0..9}.tar", "names 131072 files or more"),
    ],
)
def test_what_names_no_shards_is_refused(tmp_path, pattern, message):
    make(tmp_path, "s0.tar", "s1.tar")
    with pytest.raises(UserError, match=message):
        expand_shards(f"{tmp_path}/{pattern}")


def test_a_file_whose_name_looks_like_a_pattern_is_a_file(tmp_path):
    (tmp_path / "a{1..2}.txt").write_text("x.jpg ann\ny.jpg bob\n")
    assert is_pattern(str(tmp_path / "a{1..2}.txt"))
    assert len(open_source(tmp_path / "a{1..2}.txt")) == 2


def test_a_pattern_of_one_file_is_that_file_and_of_several_shards(tmp_path):
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text("x.jpg ann\ny.jpg bob\n")
    assert len(open_source(f"{tmp_path}/a*.txt")) == 2
    with pytest.raises(UserError, match=r"2 files; a pattern names the shards"):
        open_source(f"{tmp_path}/*.txt")
