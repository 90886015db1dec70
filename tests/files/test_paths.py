"""Paths with ~ and with commas."""

from pathlib import Path

import pytest

from uniface_jax.errors import UserError
from uniface_jax.files.paths import expanded, split_parts, split_paths


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("~", "/home/ann"),
        ("~/x", "/home/ann/x"),
        ("--output=~/res", "--output=/home/ann/res"),
        ("--data=pairs:~/a.txt,root=~/f", "--data=pairs:/home/ann/a.txt,root=/home/ann/f"),
        ("--config.eval.data=a.bin,~/b.bin", "--config.eval.data=a.bin,/home/ann/b.bin"),
        ("./~", "./~"),
        ("a~", "a~"),
        ("x/~/y", "x/~/y"),
        ("--description=about ~ten", "--description=about ~ten"),
    ],
)
def test_a_home_folder_begins_a_path(monkeypatch, text, expected):
    monkeypatch.setenv("HOME", "/home/ann")
    assert expanded(text) == expected


def test_nobody_s_home_is_refused():
    with pytest.raises(UserError, match="--output=~no_one_here/x: ~no_one_here is no user's home"):
        expanded("--output=~no_one_here/x")


def test_a_comma_belongs_to_a_path_that_is_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a,b.bin", "c.bin", "x,y"):
        Path(name).touch()
    assert split_parts("a,b.bin,c.bin,root=x,y") == ["a,b.bin", "c.bin", "root=x,y"]
    assert split_paths("q.bin,,r.bin,") == [Path("q.bin"), Path("r.bin")]
    assert split_parts("") == []
    assert split_parts("a," + "b" * 300) == ["a", "b" * 300]
