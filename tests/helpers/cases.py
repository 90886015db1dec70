"""Cases: folders with a case.json of commands and what is right; see tests/cases/README.md."""

import html.parser
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.helpers.forked_commands import WARNING, Ended

TIMEOUT = 300
BUSY = 5  # on a busy machine what takes a second of work may take some seconds
MAX_REFUSED_BYTES = 10**9

# How a command runs: (its arguments, env, seconds) -> how it ended.
Run = Callable[[list[str], dict[str, str], float], Ended]


@dataclass(frozen=True)
class Places:
    """What the placeholders of a case stand for."""

    case: Path
    cases: Path
    out: Path
    workdir: Path
    model: Path

    def fill(self, text: str) -> str:
        return re.sub(r"\{(case|cases|out|workdir|model)\}", lambda m: str(vars(self)[m[1]]), text)


def found(folder: Path) -> Iterator[Path]:
    """Yield the folders of cases below field/ and hostile/, or below one of these."""
    patterns = ("*/*/case.json", "*/case.json")
    yield from sorted(file.parent for pattern in patterns for file in folder.glob(pattern))


def commands_of(case: Path) -> tuple[set[str], bool]:
    """Return the commands that a case runs, and whether one has an environment of its own."""
    found = json.loads((case / "case.json").read_text())
    words = [shlex.split(command) for command in found.get("prepare", [])]
    prepared = {rest[0].replace("-", "_") for first, *rest in words if first == "uniface"}
    checked = {check["run"].split()[0] for check in found["checks"]}
    return prepared | checked, any("home" in check for check in found["checks"])


def walk(places: Places, run: Run) -> None:
    """Run a case; AssertionError with the output for what is not right."""
    case = json.loads((places.case / "case.json").read_text())
    assert case.keys() <= {"prepare", "checks"}
    for command in case.get("prepare", []):
        _prepare(places.fill(command), places, run)
    for check in case["checks"]:
        _check(check, places, run)


def _prepare(command: str, places: Places, run: Run) -> None:
    program, *arguments = shlex.split(command)
    if program == "uniface":
        name, *rest = arguments
        ended = run([name.replace("-", "_"), *rest], {}, TIMEOUT)
        assert ended.returncode == 0, f"{command}\n{ended.output}"
    else:
        program = sys.executable if program == "python" else program
        subprocess.run([program, *arguments], check=True, cwd=places.out)


def _check(check: dict[str, Any], places: Places, run: Run) -> None:
    known = {"run", "status", "says", "not", "exists", "within", "home", "same_numbers"}
    assert check.keys() <= known | {"clean_html"}, check
    env = {}
    if "home" in check:
        env["HOME"] = places.fill(check["home"])
        Path(env["HOME"]).mkdir(exist_ok=True)
    limit = check.get("within", TIMEOUT)
    ended = run(shlex.split(places.fill(check["run"])), env, BUSY * limit)
    told = f"{check['run']}\nstatus {ended.returncode}\n{ended.output}"
    assert ended.returncode is not None, f"did not end\n{told}"
    assert ended.cpu_seconds <= limit, f"{ended.cpu_seconds} s\n{told}"
    assert "Traceback" not in ended.output, told
    assert not WARNING.search(ended.output), told
    assert ended.returncode in check.get("status", [0]), told
    if ended.returncode == 2:
        assert ended.output.rstrip().rpartition("\n")[2].startswith("error: "), told
        assert ended.peak_bytes < MAX_REFUSED_BYTES, f"{ended.peak_bytes} bytes\n{told}"
    if "says" in check:
        assert re.search(places.fill(check["says"]), ended.output), told
    if "not" in check:
        assert not re.search(places.fill(check["not"]), ended.output), told
    if "exists" in check:
        pattern = Path(places.fill(check["exists"]))
        assert pattern.exists() or list(pattern.parent.glob(pattern.name)), told
    if "same_numbers" in check:
        first, second = (numbers(Path(places.fill(name))) for name in check["same_numbers"])
        assert first == second, told
    if "clean_html" in check and (page := Path(places.fill(check["clean_html"]))).exists():
        assert not dangers(page.read_text()), told


def numbers(file: Path) -> list[float]:
    """List the numbers of the protocols in a metrics.json, in their order."""

    def below(value: Any) -> Iterator[float]:
        if isinstance(value, dict | list):
            for inner in value.values() if isinstance(value, dict) else value:
                yield from below(inner)
        elif isinstance(value, int | float):
            yield value

    listed = list(below(json.loads(file.read_text())["protocols"]))
    assert listed, file
    return listed


class _Dangers(html.parser.HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        if tag in {"script", "iframe", "object", "embed", "base", "link", "form"}:
            self.found.append(tag)
        for name, value in attributes:
            elsewhere = name in {"src", "href", "action", "formaction", "srcset", "xlink:href"}
            inside = (value or "").startswith(("data:image/", "#"))
            if name.startswith("on") or (elsewhere and not inside):
                self.found.append(f"{tag} {name}={value}")
            if name == "http-equiv" and (value or "").lower() == "refresh":
                self.found.append(f"{tag} {name}={value}")


def dangers(page: str) -> list[str]:
    """List what runs or fetches in a page; the template of the reports has none of it."""
    parser = _Dangers()
    parser.feed(page)
    parser.close()
    return parser.found
