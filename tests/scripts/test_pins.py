import subprocess
import sys
import tomllib
from pathlib import Path

import pins
import pytest
from packaging.requirements import Requirement

PROJECT = tomllib.loads((pins.ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]


@pytest.mark.parametrize("file", sorted(pins.FILES.values()))
def test_what_the_project_names_is_pinned_within_its_bounds(file):
    found = pins.read_pins(pins.ROOT / file)
    for text in [*PROJECT["dependencies"], *(one for extra in EXTRAS.values() for one in extra)]:
        requirement = Requirement(text)
        if requirement.name == PROJECT["name"]:
            assert requirement.extras <= EXTRAS.keys()
        else:
            assert requirement.specifier.contains(found[pins.normalized(requirement.name)]), text


def test_differences_name_what_is_not_pinned():
    assert pins.differences({"a": "1", "b": "2"}, {"a": "1", "b": "3", "c": "4"}) == [
        "b==3, pinned: 2",
        "c==4, pinned: no",
    ]


@pytest.mark.slow
def test_pip_resolves_every_extra_to_the_pins():
    script = Path(pins.__file__)
    done = subprocess.run([sys.executable, script], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    checked = [line.partition(":")[0].split(", ") for line in done.stdout.splitlines()[:-1]]
    assert sorted(extra for group in checked for extra in group) == sorted(EXTRAS)
