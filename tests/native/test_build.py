"""Compiling the kernels: without a compiler, with a broken one, by several processes at once.

What the machine's own compiler makes is compiled once, into the user's cache; tests of the folder
have a compiler that copies that.
"""

import functools
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from tests.helpers.paths import ROOT
from uniface_jax import losses
from uniface_jax.head.blocks import Prototypes, Samples, additive_pass
from uniface_jax.native import build

# Of a compiler in sh that leaves the sources alone, and makes the library where it should link one.
ONLY_LINKS = '[ "$1" = --version ] && exit\ncase " $* " in *" -c "*) exit 0 ;; esac\n'


@pytest.fixture
def fresh(monkeypatch, tmp_path, caplog):
    """Begin as a process with an empty cache does; give the folder for the kernels."""
    monkeypatch.delenv(build.SWITCH, raising=False)
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(build, "library", functools.cache(build.library.__wrapped__))
    caplog.set_level(logging.INFO, build.__name__)
    return build.default_folder() / "native"


def script(path, text):
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def head():
    """The head's program of arrays that the kernel would take, as text."""
    dimension = 64

    def run(weight, directions):
        prototypes = Prototypes(weight, np.float32(5), np.ones(9, bool))
        samples = Samples(directions, np.arange(4, dtype=np.int32))
        return additive_pass(losses.create("uce"), prototypes, samples, 128, 1.0)

    shapes = [jax.ShapeDtypeStruct((rows, dimension), np.float32) for rows in (9, 4)]
    return jax.jit(run).lower(*shapes).as_text()


def assert_as_without():
    assert not build.available()
    found = head()
    with build.off():
        assert head() == found


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def messages(caplog, level):
    return [record.message for record in caplog.records if record.levelno == level]


def test_without_a_compiler(fresh, monkeypatch, tmp_path, caplog):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert_as_without()
    assert messages(caplog, logging.INFO) == [
        "no C++ compiler (c++, g++, clang++): kernels are XLA's"
    ]
    assert not messages(caplog, logging.WARNING)
    assert not fresh.exists()


def test_a_compiler_that_is_not_there(fresh, monkeypatch, caplog):
    """It was asked for by name, so that no other is taken, and not without a word."""
    monkeypatch.setenv("CXX", "nowhere++ -g")
    assert_as_without()
    assert messages(caplog, logging.WARNING) == ["no C++ compiler (nowhere++): kernels are XLA's"]


def test_a_compiler_that_fails(fresh, monkeypatch, tmp_path, caplog):
    fails = script(tmp_path / "c++", '[ "$1" = --version ] || { echo no such header >&2; exit 1; }')
    monkeypatch.setenv("CXX", fails)
    assert_as_without()
    (warning,) = messages(caplog, logging.WARNING)
    assert fails in warning
    assert "no such header" in warning
    assert names(fresh) == ["lock"]


def test_what_a_compiler_made_is_no_library(fresh, monkeypatch, tmp_path, caplog):
    makes = '[ "$1" = --version ] && exit\nfor last; do :; done\necho text > "$last"'
    makes = script(tmp_path / "c++", makes)
    monkeypatch.setenv("CXX", makes)
    assert_as_without()
    (warning,) = messages(caplog, logging.WARNING)
    assert str(fresh) in warning


def test_a_cache_that_cannot_be_written(fresh, tmp_path, caplog):
    (tmp_path / "cache").write_text("a file")
    assert_as_without()
    if shutil.which("c++") or shutil.which("g++") or shutil.which("clang++"):
        (warning,) = messages(caplog, logging.WARNING)
        assert str(tmp_path / "cache") in warning


def test_switched_off(fresh, monkeypatch, tmp_path):
    asked = tmp_path / "asked"
    monkeypatch.setenv("CXX", script(tmp_path / "c++", f"touch {asked}"))
    monkeypatch.setenv(build.SWITCH, "0")
    assert_as_without()
    assert not asked.exists()


def start(environment):
    command = "from uniface_jax.native import build; print(build.available(), build.vector_width())"
    return subprocess.Popen(
        [sys.executable, "-c", command], cwd=ROOT, env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def test_processes_share_one_library(kernels, tmp_path):
    """Two at once on an empty folder: one compiles, the other waits; a third finds it there."""
    compiled = tmp_path / "compiled"
    copies = script(
        tmp_path / "c++",
        f'{ONLY_LINKS}sleep 1\necho once >> {compiled}\nfor last; do :; done\ncp {kernels} "$last"',
    )
    environment = {**os.environ, "CXX": copies, "XDG_CACHE_HOME": str(tmp_path / "cache")}

    def ends(process):
        out, err = process.communicate(timeout=120)
        assert out.split() == ["True", str(build.vector_width())], err

    together = [start(environment) for _ in range(2)]
    for process in together:
        ends(process)
    ends(start(environment))
    assert compiled.read_text() == "once\n"
    (library,) = (tmp_path / "cache").rglob("*.so")
    assert names(library.parent) == sorted([library.name, "lock"])


def test_the_name_is_of_what_it_was_made_from(fresh, monkeypatch, tmp_path):
    """Another compiler, or another version of one, does not find the library of the first."""
    makes = 'if [ "$1" = --version ]; then echo %s; exit; fi\nfor last; do :; done\necho > "$last"'
    paths = set()
    for name, version in (("c++", 1), ("c++", 2), ("g++", 1), ("c++", 1)):
        paths.add(build._compiled([script(tmp_path / name, makes % version)]))
    assert len(paths) == len(list(fresh.glob("*.so"))) == 3


def test_the_name_is_of_jaxlibs_headers_and_not_of_their_folder(fresh, monkeypatch, tmp_path):
    compiler = script(tmp_path / "c++", f'{ONLY_LINKS}for last; do :; done\necho > "$last"')
    path = build._compiled([compiler])
    moved = shutil.copytree(jax.ffi.include_dir(), tmp_path / "include")
    monkeypatch.setattr(jax.ffi, "include_dir", lambda: str(moved))
    assert build._compiled([compiler]) == path
    header = next(moved.rglob("*.h"))
    header.write_text(f"{header.read_text()}// of another version\n")
    assert build._compiled([compiler]) != path


def copying(tmp_path, kernels):
    """A compiler that takes the kernels of this session, and a file that counts its work."""
    compiled = tmp_path / "compiled"
    text = f'{ONLY_LINKS}echo once >> {compiled}\nfor last; do :; done\ncp {kernels} "$last"'
    return script(tmp_path / "c++", text), compiled


@pytest.mark.parametrize("damage", ["cut short", "emptied", "a bit"])
def test_a_damaged_library_is_compiled_again(kernels, fresh, monkeypatch, tmp_path, damage):
    compiler, compiled = copying(tmp_path, kernels)
    path = build._compiled([compiler])
    whole = path.read_bytes()
    assert build._compiled([compiler]) == path
    assert compiled.read_text() == "once\n"
    flipped = bytes([*whole[:999], whole[999] ^ 1]) + whole[1000:]
    path.write_bytes({"cut short": whole[:-5000], "emptied": b"", "a bit": flipped}[damage])
    assert build._compiled([compiler]).read_bytes() == whole
    assert compiled.read_text() == "once\nonce\n"


@pytest.mark.parametrize("others", ["folder", "library"])
def test_a_library_that_others_may_have_planted_is_not_loaded(
    kernels, fresh, monkeypatch, tmp_path, caplog, others
):
    compiler, _ = copying(tmp_path, kernels)
    monkeypatch.setenv("CXX", compiler)
    library = build._compiled([compiler])
    (fresh if others == "folder" else library).chmod(0o777)
    assert_as_without()
    (warning,) = messages(caplog, logging.WARNING)
    assert "can be written by others" in warning


def test_without_a_home_the_kernels_are_xlas(fresh, monkeypatch, tmp_path, kernels, caplog):
    monkeypatch.setenv("CXX", copying(tmp_path, kernels)[0])
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(build.Path, "home", no_home)
    assert_as_without()
    (warning,) = messages(caplog, logging.WARNING)
    assert "no home folder" in warning


def no_home():
    raise RuntimeError("Could not determine home directory.")


def test_all_sources_are_named():
    here = Path(build.__file__).parent
    there = {path.name for path in here.iterdir() if path.suffix in (".cc", ".h")}
    assert {*build.SOURCES, *build.HEADERS} == there
