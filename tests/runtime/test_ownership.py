"""Folders whose content may run: who can have written there."""

import os
import stat

import pytest

from uniface_jax.runtime import ownership
from uniface_jax.runtime.ownership import make_private, reason_for_distrust

AS_ROOT = pytest.mark.skipif(os.getuid() != 0, reason="giving files away takes root")


def test_a_folder_of_ones_own_is_trusted(tmp_path):
    folder = tmp_path / "cache" / "programs"
    make_private(folder)
    make_private(folder)
    (folder / "library.so").write_bytes(b"")
    assert reason_for_distrust(folder) is None
    for made in (folder, folder.parent):
        assert stat.S_IMODE(made.stat().st_mode) == ownership.MODE


@pytest.mark.parametrize("where", ["cache", "cache/programs", "cache/programs/library.so"])
def test_what_others_can_write_is_not(tmp_path, where):
    folder = tmp_path / "cache" / "programs"
    make_private(folder)
    (folder / "library.so").write_bytes(b"")
    (tmp_path / where).chmod(0o777)
    assert reason_for_distrust(folder) == (
        f"{tmp_path / where} can be written by others (chmod go-w)"
    )


def test_others_may_add_to_a_folder_above_but_not_to_this_one(tmp_path):
    make_private(tmp_path / "tmp" / "cache")
    (tmp_path / "tmp").chmod(0o1777)
    assert reason_for_distrust(tmp_path / "tmp" / "cache") is None
    assert "can be written by others" in reason_for_distrust(tmp_path / "tmp")


def test_a_link_in_it_is_not(tmp_path):
    (tmp_path / "library.so").symlink_to("/etc/passwd")
    assert reason_for_distrust(tmp_path) == f"{tmp_path / 'library.so'} is a link"


@AS_ROOT
@pytest.mark.parametrize("where", ["cache", "cache/library.so"])
def test_what_others_own_is_not(tmp_path, where):
    (tmp_path / "cache").mkdir(0o755)
    (tmp_path / "cache" / "library.so").write_bytes(b"")
    os.chown(tmp_path / where, 12345, 12345)
    assert reason_for_distrust(tmp_path / "cache") == f"{tmp_path / where} belongs to user 12345"


def test_a_group_of_one_user_is_that_user(tmp_path, monkeypatch):
    tmp_path.chmod(0o770)
    names = ownership.pwd.getpwuid(os.getuid()).pw_name
    alone = ownership.grp.struct_group((names, "x", os.getgid(), [names]))
    several = ownership.grp.struct_group((names, "x", os.getgid(), [names, "eve"]))
    monkeypatch.setattr(ownership.grp, "getgrgid", lambda _: alone)
    assert reason_for_distrust(tmp_path) is None
    monkeypatch.setattr(ownership.grp, "getgrgid", lambda _: several)
    assert "can be written by others" in reason_for_distrust(tmp_path)
