"""The commit that a run's record names: this project's, or none, and nothing runs."""

import os
import re
import shutil
import subprocess
import time

import pytest

from tests.helpers.paths import ROOT
from uniface_jax.train.checkout import commit
from uniface_jax.train.run_record import git_commit


def git(folder, *arguments):
    who = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "init.defaultBranch=main")
    command = ["git", "-C", folder, *who, *arguments]
    outside = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
    return subprocess.run(command, check=True, capture_output=True, text=True, env=outside).stdout


@pytest.fixture
def project(tmp_path):
    """A checkout with a file, a link and a name that is not ASCII; its commit."""
    folder = tmp_path / "project"
    (folder / "uniface_jax").mkdir(parents=True)
    (folder / "pyproject.toml").write_text('[project]\nname = "uniface_jax"\n')
    (folder / "uniface_jax" / "é.py").write_text("x = 1\n")
    (folder / "link").symlink_to("uniface_jax")
    git(folder, "init", "-q")
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "first")
    return folder, git(folder, "rev-parse", "HEAD").strip()


def test_a_checkout_says_its_commit_and_whether_it_was_changed(project):
    folder, head = project
    assert commit(folder) == head
    (folder / "uniface_jax" / "new.py").write_text("")  # which git does not know
    assert commit(folder) == head
    (folder / "uniface_jax" / "é.py").write_text("x = 2\n")
    assert commit(folder) == f"{head}+"
    (folder / "uniface_jax" / "é.py").unlink()
    assert commit(folder) == f"{head}+"


def test_a_worktree_is_a_checkout(project, tmp_path):
    folder, head = project
    git(folder, "worktree", "add", "-q", tmp_path / "other")
    assert commit(tmp_path / "other") == head


def test_the_repository_around_the_package_is_not_asked(project):
    folder, _ = project
    installed = folder / "venv" / "site-packages"
    installed.mkdir(parents=True)
    assert commit(installed) is None
    (installed / "pyproject.toml").write_text('[project]\nname = "uniface_jax"\n')
    assert commit(installed) is None
    (folder / "pyproject.toml").write_text('[project]\nname = "theirs"\n')
    assert commit(folder) is None
    shutil.rmtree(folder / ".git")
    assert commit(folder) is None


def test_no_command_of_the_repository_runs(project, tmp_path):
    folder, head = project
    marker, command = tmp_path / "ran", tmp_path / "command"
    command.write_text(f"#!/bin/sh\ntouch {marker}\ncat\n")
    command.chmod(0o755)
    for key in (
        "core.fsmonitor",
        "core.sshCommand",
        "core.pager",
        "filter.x.clean",
        "diff.external",
    ):
        git(folder, "config", key, str(command))
    (folder / ".gitattributes").write_text("* filter=x\n")
    for file in (folder / "uniface_jax").iterdir():
        os.utime(file, (1, 1))  # so that its content would be looked at
    assert commit(folder) == head
    assert not marker.exists()
    git(folder, "status")
    assert marker.exists()  # which they would have done


def test_this_checkout_has_a_commit_in_no_time():
    if not (ROOT / ".git").exists():
        pytest.skip("no checkout")
    begun = time.monotonic()
    assert re.fullmatch("[0-9a-f]{40}[+]?", git_commit())
    assert time.monotonic() - begun < 10
