"""Folders of code that this user made: nobody else can have put anything there.

Whatever is loaded from a cache runs. A cache is trusted where this user, or root, owns every folder
on the way to it and nobody else can write there; the same holds for the files in it.
"""

import grp
import os
import pwd
import stat
from pathlib import Path

MODE = 0o700


def make_private(folder: Path) -> None:
    """Make `folder`, and those above it that are missing, for this user alone.

    Raises OSError.
    """
    for missing in reversed([f for f in (folder, *folder.parents) if not f.exists()]):
        missing.mkdir(MODE, exist_ok=True)


def reason_for_distrust(folder: Path) -> str | None:
    """Say why others could have put something into `folder`; None where they could not.

    The folder is one that is there. The text begins with the folder or file that is to blame.
    """
    folder = folder.resolve()
    for each in (folder, *folder.parents):
        status = each.stat()
        # In a folder like /tmp others may add files, but neither move nor replace mine.
        sticky = each != folder and status.st_mode & stat.S_ISVTX
        if why := _others(status, root_too=True, writable_too=bool(sticky)):
            return f"{each} {why}"
    with os.scandir(folder) as entries:
        for entry in entries:
            if why := _others(entry.stat(follow_symlinks=False), root_too=False):
                return f"{entry.path} {why}"
    return None


def _others(status: os.stat_result, *, root_too: bool, writable_too: bool = False) -> str | None:
    """Return what others can do with a file or folder of this status, None for nothing."""
    if status.st_uid != os.getuid() and not (root_too and status.st_uid == 0):
        return f"belongs to user {status.st_uid}"
    if stat.S_ISLNK(status.st_mode):
        return "is a link"
    written_by_group = status.st_mode & stat.S_IWGRP and not _of_one_user(status)
    if not writable_too and (status.st_mode & stat.S_IWOTH or written_by_group):
        return "can be written by others (chmod go-w)"
    return None


def _of_one_user(status: os.stat_result) -> bool:
    """Return True for a group that has its owner's name and nobody else in it."""
    try:
        owner, group = pwd.getpwuid(status.st_uid).pw_name, grp.getgrgid(status.st_gid)
    except KeyError:
        return False
    return group.gr_name == owner and set(group.gr_mem) <= {owner}
