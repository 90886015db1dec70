import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

import uniface_jax
from tests.helpers.console import ENTRY_POINT
from uniface_jax.cli.console import COMMANDS

ROOT = Path(uniface_jax.__file__).parent


@pytest.fixture
def uniface(tmp_path):
    script = tmp_path / "bin" / "uniface"
    script.parent.mkdir()
    script.write_text(ENTRY_POINT)

    def run(*arguments, **options):
        return subprocess.run(
            [sys.executable, script, *arguments], capture_output=True, text=True, **options
        )

    return run


def test_every_command_is_listed():
    doors = {f.stem for f in ROOT.glob("*.py") if "cli.run(main" in f.read_text()}
    folders = {f.parent.name for f in ROOT.glob("*/__main__.py")}
    assert {name.replace("-", "_") for name in COMMANDS} == doors | folders


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"], ["help"]])
def test_help_lists_the_commands(uniface, arguments):
    done = uniface(*arguments)
    assert (done.returncode, done.stderr) == (0, "")
    for name in COMMANDS:
        assert f"\n  {name} " in done.stdout


def test_version(uniface):
    assert uniface("--version").stdout == f"uniface_jax {uniface_jax.__version__}\n"


@pytest.mark.parametrize("name", ["nonsense", "cli", "--nonsense", ""])
def test_an_unknown_command_is_one_line(uniface, name):
    done = uniface(name)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"error: {name}: no such command; there are demo-data, align, ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_a_command_speaks_of_it_as_it_was_called(forked, tmp_path, name):
    done = forked.complete("uniface", [name, "--help"], tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"uniface {name} " in done.stdout
    assert "python -m uniface_jax" not in done.stdout


def test_the_other_form_is_spoken_too():
    done = subprocess.run(
        [sys.executable, "-m", "uniface_jax.import_weights", "--help"],
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "python -m uniface_jax.import_weights " in done.stdout
    assert not re.search(r"\buniface import", done.stdout)


def test_flags_arguments_and_errors_reach_the_command(uniface, tmp_path):
    done = uniface("import_weights", "a.pth")
    assert done.returncode == 2
    assert done.stderr.startswith("error: expected 2 arguments: SOURCE WORKDIR; got 1: a.pth")
    assert uniface("show", str(tmp_path), "--output=x.jpg").stderr == (
        "error: --output=x.jpg: expected a name that ends in .png\n"
    )
    empty = uniface("convert", str(tmp_path / "none"), str(tmp_path / "out"))
    assert empty.returncode == 2
    assert "python -m" not in empty.stderr


def test_modules_are_found_in_the_current_folder_first(uniface, tmp_path):
    (tmp_path / "mine.py").write_text("")
    code = "import importlib.util, sys; print(importlib.util.find_spec('mine'), sys.path[0])"
    (tmp_path / "bin" / "uniface").write_text(
        ENTRY_POINT.replace(
            "sys.exit", f"import runpy; runpy.run_module = lambda *a, **k: exec({code!r});sys.exit"
        )
    )
    done = uniface("show", cwd=tmp_path)
    assert done.stdout.startswith("ModuleSpec(name='mine'")
    assert done.stdout.endswith(f" {tmp_path}\n")
    safe = uniface(
        "show", cwd=tmp_path, env={"PYTHONSAFEPATH": "1", "PYTHONPATH": str(ROOT.parent)}
    )
    assert safe.stdout.startswith("None ")
    assert importlib.util.find_spec("mine") is None
