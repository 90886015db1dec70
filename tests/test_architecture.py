"""The rules of the house that a machine can keep; CONTRIBUTING.md says what they are for."""

import ast
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from pins import normalized

from tests.helpers.paths import ROOT

PACKAGE = ROOT / "uniface_jax"
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
CODE = [
    file for part in ("uniface_jax", "configs", "scripts") for file in (ROOT / part).rglob("*.py")
]
# By their distributions, of extras that the tests do without.
DISTRIBUTIONS = {"mlflow": ["mlflow-skinny"]}
MAX_ENTRIES, MAX_FILE_LINES, MAX_FUNCTION_LINES, MAX_PARAMETERS = 28, 400, 60, 6
LATER_COMMANDS = {
    "clean",
    "hold_out.py",
    "make_pairs.py",
    "embed",
    "gallery",
    "serve",
    "studio",
}  # an entry more for each
# What is over a limit, each with its reason. The lists may only shrink.
LONG_FILES: set[str] = set()
LONG_FUNCTIONS: set[str] = set()
# A rule takes the parameters of a JAX primitive, by the names that JAX gives them.
MANY_PARAMETERS = {
    "uniface_jax/export/onnx/rules.py:_conv",
    "uniface_jax/export/onnx/rules.py:_pool",
}


def functions() -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    for file in CODE:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield f"{file.relative_to(ROOT)}:{node.name}", node


def parameters(function: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    given = function.args
    names = [argument.arg for argument in [*given.posonlyargs, *given.args, *given.kwonlyargs]]
    return names[1:] if names[:1] in (["self"], ["cls"]) else names


def test_entries_of_the_package():
    entries = {entry.name for entry in PACKAGE.iterdir()} - {"__pycache__"}
    assert len(entries - LATER_COMMANDS) <= MAX_ENTRIES, sorted(entries)
    assert entries >= LATER_COMMANDS


def test_files_are_short():
    assert {
        str(file.relative_to(ROOT))
        for file in CODE
        if file.read_text().count("\n") > MAX_FILE_LINES
    } == LONG_FILES


def test_functions_are_short():
    assert {
        name for name, node in functions() if node.end_lineno - node.lineno >= MAX_FUNCTION_LINES
    } == LONG_FUNCTIONS


def test_functions_take_few_parameters():
    assert {
        name for name, node in functions() if len(parameters(node)) > MAX_PARAMETERS
    } == MANY_PARAMETERS


def test_types_are_strict_everywhere():
    settings = PYPROJECT["tool"]["mypy"]
    assert settings["strict"] is True
    for section in settings["overrides"]:  # of other packages, that come without types
        assert section.keys() == {"module", "ignore_missing_imports"}
        assert not any(module.startswith("uniface_jax") for module in section["module"])


def test_every_package_that_is_imported_is_a_dependency_or_in_an_extra():
    project = PYPROJECT["project"]
    extras = [text for texts in project["optional-dependencies"].values() for text in texts]
    named = {normalized(Requirement(text).name) for text in [*project["dependencies"], *extras]}
    distributions = {**metadata.packages_distributions(), **DISTRIBUTIONS}
    missing = set()
    for file in [*PACKAGE.rglob("*.py"), *(ROOT / "configs").glob("*.py")]:
        for module in imported(file) - sys.stdlib_module_names - {"uniface_jax"}:
            owners = {normalized(name) for name in distributions.get(module, [module])}
            if not owners & named and module != "google":  # protobuf, which onnx brings
                missing.add((str(file.relative_to(ROOT)), module))
    assert not missing


def test_every_image_from_elsewhere_goes_through_one_checked_decoder():
    decoder = re.compile(r"simplejpeg|Image\.open|imdecode|imread|decode_(jpeg|png|image)\(")
    using = {str(file.relative_to(ROOT)) for file in CODE if decoder.search(file.read_text())}
    allowed = "uniface_jax/data/formats/images.py"
    assert {file for file in using if file.startswith("uniface_jax")} == {allowed}


def imported(file: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.partition(".")[0])
    return names


def lint_imports(folder: Path) -> subprocess.CompletedProcess:
    command = Path(sys.executable).with_name("lint-imports")
    return subprocess.run(
        [command, "--no-cache", "--no-logo"],
        cwd=folder,
        env={"PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
    )


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    folder = tmp_path_factory.mktemp("copy")
    shutil.copy(ROOT / "pyproject.toml", folder)
    shutil.copytree(PACKAGE, folder / "uniface_jax", ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def test_imports_run_down(copy):
    done = lint_imports(copy)
    assert done.returncode == 0, done.stdout
    assert re.search(r"Contracts: \d+ kept, 0 broken", done.stdout)


@pytest.mark.parametrize(
    ("module", "planted", "contract"),
    [
        ("files/atomic.py", "uniface_jax.train.loop", "Imports run down"),
        ("data/formats/images.py", "uniface_jax.data.sources.base", "Data: from files to batches"),
        ("train/optim.py", "uniface_jax.evaluate.protocols", "Training knows no protocols"),
        ("inference/load.py", "orbax.checkpoint", "Only checkpoints/ knows Orbax"),
        ("evaluate/sets/pair_sets.py", "uniface_jax.evaluate.report", "No circles"),
    ],
)
def test_a_planted_import_is_refused(copy, module, planted, contract):
    file = copy / "uniface_jax" / module
    before = file.read_text()
    # Inside a function: what is imported late is an import too.
    file.write_text(f"{before}\n\ndef planted():\n    import {planted}\n")
    try:
        done = lint_imports(copy)
    finally:
        file.write_text(before)
    assert done.returncode == 1
    broken = [line for line in done.stdout.splitlines() if " BROKEN" in line]
    assert any(line.startswith(contract) for line in broken), done.stdout


def test_a_new_entry_needs_a_layer(copy):
    file = copy / "uniface_jax" / "utils.py"
    file.write_text("")
    try:
        done = lint_imports(copy)
    finally:
        file.unlink()
    assert done.returncode == 1
    assert "uniface_jax.utils" in done.stdout
