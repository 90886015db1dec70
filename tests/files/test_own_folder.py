"""The user's own folder: private, and nobody's word where others may write to it."""

import os
from pathlib import Path

import pytest

from uniface_jax.files.own_folder import VARIABLE, KnownDigests, own_folder


def test_the_folder_is_private_and_where_the_user_says(tmp_path, monkeypatch):
    monkeypatch.setenv(VARIABLE, str(tmp_path / "mine"))
    assert own_folder("features") == tmp_path / "mine" / "features"
    monkeypatch.delenv(VARIABLE)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    old = os.umask(0o002)
    try:
        folder = own_folder("features")
    finally:
        os.umask(old)
    assert folder == tmp_path / "cache/uniface_jax/known/features"
    assert folder.stat().st_mode & 0o777 == folder.parent.stat().st_mode & 0o777 == 0o700
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert own_folder("sets") == tmp_path / "home/.cache/uniface_jax/known/sets"


@pytest.mark.parametrize("which", ["known", "known/features"])
def test_a_folder_that_others_may_write_to_is_refused(tmp_path, monkeypatch, which):
    monkeypatch.setenv(VARIABLE, str(tmp_path / "known"))
    own_folder("features")
    (tmp_path / which).chmod(0o777)
    with pytest.raises(OSError, match="others may write to it"):
        own_folder("features")


def test_a_folder_of_another_user_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv(VARIABLE, str(tmp_path / "known"))
    own_folder("features")
    monkeypatch.setattr(os, "geteuid", lambda: (tmp_path.stat().st_uid) + 1)
    with pytest.raises(OSError, match="another user owns it"):
        own_folder("features")


def test_no_home_is_an_error_of_the_kind_of_others(monkeypatch):
    monkeypatch.delenv(VARIABLE)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)

    def no_home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", no_home)
    with pytest.raises(OSError, match="no home folder"):
        own_folder("features")


def test_digests_are_known_until_they_are_discarded(tmp_path):
    known, again = (KnownDigests(tmp_path / "known") for _ in range(2))
    known.add("ab")
    assert "ab" in again
    again.discard("ab")
    again.discard("ab")
    assert "ab" not in known
    (tmp_path / "file").write_text("")
    for nowhere in (KnownDigests(None), KnownDigests(tmp_path / "file")):
        nowhere.add("ab")
        nowhere.discard("ab")
        assert "ab" not in nowhere
