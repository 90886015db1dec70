"""The image's recipe: its pins and its user, and that what it copies is what a build needs."""

import fnmatch
import json
import re
import shutil
import subprocess
import sys
import tomllib

import pytest

from tests.helpers import doc_commands
from tests.helpers.paths import ROOT

# Instructions, with their lines joined and comments left out.
TEXT = re.sub(r"\\\n", " ", re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.M))
INSTRUCTIONS = [line.split(maxsplit=1) for line in TEXT.splitlines() if line.strip()]
STAGES = TEXT.split("FROM ")[1:]


def arguments(name: str) -> list[str]:
    return [rest for instruction, rest in INSTRUCTIONS if instruction == name]


def test_the_base_is_a_python_whose_versions_are_pinned():
    bases = {rest.split()[0] for rest in arguments("FROM")}
    (base,) = bases
    major, minor = re.fullmatch(r"python:(\d)\.(\d+)-slim-\w+", base).groups()
    constraints = f"constraints-py{major}{minor}.txt"
    assert (ROOT / constraints).is_file()
    (installed,) = [rest for rest in arguments("RUN") if "pip install" in rest]
    assert f"--constraint {constraints}" in installed
    assert "--no-cache-dir" in installed


def test_extras_are_those_of_the_project():
    named = re.search(r'"\.\[([\w,]+)\]"', TEXT)[1].split(",")
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    assert "serve" in named
    assert set(named) <= set(extras)


def test_nothing_is_fetched_or_kept_beside_packages():
    assert arguments("ADD") == []
    for rest in arguments("RUN"):
        assert not re.search(r"\b(curl|wget|sudo)\b|\blatest\b", rest)
        if "apt-get install" in rest:
            assert "--no-install-recommends" in rest
            assert "rm -rf /var/lib/apt/lists/*" in rest


def test_the_server_is_no_root_and_gets_signals():
    assert re.search(r"^USER (\d+):", STAGES[-1], re.M)[1] != "0"
    command = json.loads(arguments("ENTRYPOINT")[0])  # no shell between it and SIGTERM
    assert command[:3] == ["python", "-m", "uniface_jax.serve"]
    assert doc_commands.problems(" ".join(command)) == []
    assert arguments("STOPSIGNAL") == ["SIGTERM"]


def test_health_is_asked_by_a_host_that_is_answered():
    (rest,) = arguments("HEALTHCHECK")
    *_, program = json.loads(rest.partition("CMD ")[2])
    assert "http://127.0.0.1:8000/health" in program
    compile(program, "HEALTHCHECK", "exec")


def let_through(name: str) -> bool:
    """Return True for an entry of the checkout that .dockerignore lets into the build."""
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line[:1] != "#"]
    kept = False
    for line in lines:
        pattern = line.removeprefix("!").removeprefix("**/")
        if fnmatch.fnmatch(name, pattern):
            kept = line.startswith("!")
    return kept


def copied() -> set[str]:
    """List the entries of the checkout that are copied."""
    rows = [rest.split() for rest in arguments("COPY") if not rest.startswith("--from")]
    return {name for *names, _ in rows for name in names}


def test_only_what_is_copied_is_let_into_the_build():
    entries = {path.name for path in ROOT.iterdir()}
    assert {name for name in entries if let_through(name)} == copied()
    assert not any(map(let_through, (".git", "runs", "token", ".env", "__pycache__", "x.pyc")))


@pytest.mark.slow
def test_what_is_copied_makes_a_wheel(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    for name in copied():
        if (ROOT / name).is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / name, source / name, ignore=ignored)
        else:
            shutil.copy(ROOT / name, source / name)
    done = subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--outdir", tmp_path, source],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("uniface_jax-*.whl")
    names = subprocess.run(
        [sys.executable, "-m", "zipfile", "-l", wheel], capture_output=True, text=True, check=True
    ).stdout
    for name in (
        "uniface_jax/serve/__main__.py",
        "uniface_jax/native/nearest.cc",
        "uniface_jax/configs/demo.py",
    ):
        assert name in names
