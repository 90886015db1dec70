"""Resolves every extra on this Python by pip, without installing, and compares constraints*.txt.

    python scripts/pins.py            # all that pip would install for any extra is pinned
    python scripts/pins.py --write    # the pins made complete, and what nothing needs taken out
    python scripts/pins.py --newest   # the newest versions that resolve instead

No package is downloaded, except those whose index gives no metadata of them: pip reads these. It
needs nothing but the standard library, so that any Python runs it.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
import tomllib
import venv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
FILES = {
    (3, 11): "constraints.txt",
    (3, 12): "constraints-py312.txt",
    (3, 13): "constraints-py313.txt",
}
# The first whose dry run reads metadata alone.
PIP = "pip>=23.3"
# PyTorch itself says exactly which of NVIDIA's libraries it takes.
PINS_ITS_OWN = "torch"


def constraints_file() -> Path:
    """Return the pins of this Python, or of the newest that has some."""
    version = sys.version_info[:2]
    return ROOT / FILES[max(known for known in FILES if known <= version)]


def read_pins(file: Path) -> dict[str, str]:
    """Read {name: version}, names as PyPI normalizes them."""
    lines = [line for line in file.read_text().splitlines() if line and not line.startswith("#")]
    pairs = [line.split("==") for line in lines]
    return {normalized(name): version for name, version in pairs}


def normalized(name: str) -> str:
    """Return a distribution's name as PyPI normalizes it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _pyproject() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def extras() -> list[str]:
    """List the extras of pyproject.toml."""
    return list(_pyproject()["project"]["optional-dependencies"])


def resolve(pip: Path, chosen: Sequence[str], constraints: Path | None) -> dict[str, str]:
    """Return {name: version} of all that pip would install for these extras in an empty venv.

    pip: of a venv that has what builds the project. Raises SystemExit with pip's own words where
    nothing fits.
    """
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        options = ["--dry-run", "--ignore-installed", "--no-build-isolation", "--quiet"]
        options.append(f"--report={report}")
        pins = ["-c", str(constraints)] if constraints else []
        done = subprocess.run(
            [pip, "install", *options, *pins, f"{ROOT}[{','.join(chosen)}]"],
            capture_output=True,
            text=True,
        )
        if done.returncode:
            sys.exit(f"{', '.join(chosen)}: {done.stderr}")
        found = [entry["metadata"] for entry in json.loads(report.read_text())["install"]]
    return {  # without the name of a build, as in 2.13.0+cpu
        normalized(one["name"]): one["version"].partition("+")[0]
        for one in found
        if one["name"] != "uniface_jax"
    }


def differences(pins: dict[str, str], found: dict[str, str]) -> list[str]:
    """List what pip would install that is not pinned, or not as it is pinned."""
    return [
        f"{name}=={version}, pinned: {pins.get(name, 'no')}"
        for name, version in sorted(found.items())
        if pins.get(name) != version
    ]


def write(file: Path, found: dict[str, str]) -> None:
    """Write the pins below the comment that the file begins with."""
    head = file.read_text().splitlines()[0]
    lines = [f"{name}=={version}" for name, version in sorted(found.items())]
    file.write_text("\n".join([head, *lines]) + "\n")


def main() -> int:
    """Check each extra, or write the pins of all; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="complete the pins")
    parser.add_argument("--newest", action="store_true", help="pin the newest versions")
    parser.add_argument("extras", nargs="*", help="the extras to check; default: all")
    options = parser.parse_args()
    file = constraints_file()
    chosen = options.extras or extras()
    together = [extra for extra in chosen if extra != PINS_ITS_OWN]
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=True)
        pip = Path(folder) / "bin" / "pip"
        # What builds the project too: pip would install it anew for each extra.
        needed = [PIP, *_pyproject()["build-system"]["requires"]]
        subprocess.run([pip, "install", "--quiet", "--upgrade", *needed], check=True)
        if options.write or options.newest:
            found = resolve(pip, together, None if options.newest else file)
            pins = read_pins(file)
            write(file, {**found, PINS_ITS_OWN: pins[PINS_ITS_OWN]})
            return 0
        pins = read_pins(file)
        wrong = 0
        # At once: with every version given, what one extra needs is among what all of them need.
        for group in filter(None, (together, [extra for extra in chosen if extra not in together])):
            found = resolve(pip, group, file)
            if PINS_ITS_OWN in group:
                found = {PINS_ITS_OWN: found[PINS_ITS_OWN]}
            unpinned = differences(pins, found)
            wrong += bool(unpinned)
            lines = "".join(f"; {line}" for line in unpinned)
            print(f"{', '.join(group)}: {len(found)} packages{lines}")
    print(f"{file.name}: {'not ' if wrong else ''}what pip resolves")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
