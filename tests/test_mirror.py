"""The tests stand where what they test stands."""

from pathlib import Path

import pytest

from tests.helpers.paths import ROOT

TESTS, PACKAGE = ROOT / "tests", ROOT / "uniface_jax"
# Folders of the checkout beside the package, and the tests' own parts.
BESIDE = {"configs", "docs", "notebooks", "scripts"}
OWN = {"helpers"}
# Tests of the whole house; each other one at the root is of the module there.
OF_ALL = {
    "architecture", "before_the_house", "cases", "doctests", "extras", "full_disk",
    "hostile_places", "import", "insightface_demo", "makefile", "mirror", "no_arguments",
    "outside", "wheel", "words",
}  # fmt: skip
FILES = sorted(path.relative_to(TESTS) for path in TESTS.rglob("test_*.py"))
ROOMS = sorted({path.parent.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py")})


def test_every_folder_of_tests_is_that_of_a_room():
    folders = {path.parent for path in FILES} - {Path(name) for name in BESIDE | OWN}
    assert folders <= set(ROOMS)
    for name in BESIDE:
        assert (ROOT / name).is_dir()


def test_tests_at_the_root_are_of_modules_at_the_root():
    names = {path.stem.removeprefix("test_") for path in FILES if path.parent == Path()}
    modules = {path.stem for path in PACKAGE.glob("*.py")}
    assert names - OF_ALL <= modules
    assert names >= OF_ALL


@pytest.mark.parametrize("room", ROOMS, ids=str)
def test_every_room_has_tests(room):
    assert [path for path in FILES if path.parent == room]


def test_helpers_are_imported_as_a_package():
    files = [path for path in TESTS.rglob("*.py") if path != Path(__file__)]
    files = [path for path in files if TESTS / "cases" not in path.parents]  # made by others
    assert [path for path in files if not (path.parent / "__init__.py").is_file()] == []
    assert [path for path in files if "sys.path.insert" in path.read_text()] == []
