"""The commands that README and docs print, and the check that each of their flags exists."""

import argparse
import contextlib
import os
import re
import runpy
import shlex
import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from unittest import mock

import reference_pages
from absl import flags

from tests.helpers.paths import ROOT
from uniface_jax import config as configs
from uniface_jax.errors import UserError

PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]
# Programs of others that pages name: what they do with their flags is theirs.
OTHERS = (
    "cd", "chmod", "curl", "docker", "echo", "gcloud", "git", "openssl", "pip", "pre-commit",
    "pytest", "source", "tensorboard", "tfds",
)  # fmt: skip
# Scripts that hand what follows so many arguments on to `train`.
TRAIN_FROM = {"scripts/slurm.sh": 0, "scripts/tpu_pod.sh": 2}

_MARKER = re.compile(r"<!-- not run: (.+) -->")
_FENCE = re.compile(r"^\s*```(\w*)")
_SPAN = re.compile(r"`([^`]+)`")
_FEED = "python - <<'END'"
_OUTSIDE_KEY = re.compile(r"config\.(loss|hooks|model|data\.augment)\.\w+\.\w+")
_PLACEHOLDER = re.compile(r"[A-Z]{3,}|…")


@dataclass(frozen=True)
class Block:
    """One fenced block of sh or Python: its commands, and why they are not run, if they are not.

    A program in Python is one command, which feeds it to python.
    """

    page: str
    line: int
    commands: tuple[str, ...]
    not_run: str | None

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks(path: Path) -> list[Block]:
    """Return the blocks of sh and Python of a page in their order."""
    found: list[Block] = []
    language, inside, reason, start = "", [], None, 0
    fenced = False
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if fence := _FENCE.match(line):
            if fenced and language in ("sh", "python"):
                page, program = str(path.relative_to(ROOT)), "\n".join(inside)
                commands = split(inside) if language == "sh" else [f"{_FEED}\n{program}\nEND"]
                found.append(Block(page, start, tuple(commands), reason))
            if fenced:
                reason = None
            fenced, language, inside, start = not fenced, fence[1], [], number + 1
        elif fenced:
            inside.append(line)
        elif marker := _MARKER.fullmatch(line.strip()):
            reason = marker[1]
        elif line.strip():
            reason = None
    return found


def split(lines: Sequence[str]) -> Iterator[str]:
    """Yield the commands of a block: continued lines and open quotes belong to the one before."""
    pending: list[str] = []
    for line in lines:
        pending.append(line)
        text = "\n".join(pending)
        if line.rstrip().endswith("\\") or not _is_closed(text):
            continue
        if text.strip() and not text.lstrip().startswith("#"):
            yield text
        pending = []
    assert not pending, f"a command without an end: {pending}"


def _is_closed(text: str) -> bool:
    try:
        shlex.split(text, comments=True)
    except ValueError:
        return False
    return True


def spans(path: Path) -> list[str]:
    """Return the code spans in a page's prose that are commands, or flags alone."""
    prose, fenced = [], False
    for line in path.read_text().splitlines():
        if _FENCE.match(line):
            fenced = not fenced
        elif not fenced and not line.startswith("    "):
            prose.append(line)
    found = [" ".join(span.split()) for span in _SPAN.findall("\n".join(prose))]
    starts = ("python ", "uniface ", "make ", "sbatch ", ".venv/bin/python ", "--")
    return [span for span in found if span.startswith(starts) and not span.startswith("--xla")]


def problems(command: str) -> list[str]:
    """Return what is wrong with a command: programs, targets, scripts, flags that do not exist."""
    found: list[str] = []
    words: list[str] = []
    if command.startswith(_FEED):
        return []
    for word in [*shlex.split(command, comments=True), ";"]:
        if word in (";", "&&", "||", "|"):
            found += _problems_of_one(words) if words else []
            words = []
        else:
            words.append(word)
    return found


def _problems_of_one(words: list[str]) -> list[str]:
    while re.fullmatch(r"[A-Z_]+=.*", words[0]):
        words = words[1:]
    program, *rest = words
    program = program.removeprefix(".venv/bin/")
    if program.startswith("--"):
        return [] if _is_known_anywhere(program) else [f"{program}: no command has this flag"]
    if program == "make":
        unknown = [word for word in rest if "=" not in word and word not in make_targets()]
        return [f"make {word}: no such target" for word in unknown]
    if program == "pip":
        return _unknown_extras(rest)
    if program in OTHERS:
        return []
    if program == "sbatch":
        program, *rest = rest
    if program in TRAIN_FROM:
        return _unknown_flags("uniface_jax.train", rest[TRAIN_FROM[program] :])
    if program == "uniface":
        return _unknown_flags(f"uniface_jax.{rest[0].replace('-', '_')}", rest[1:])
    if program == "python" and rest[:1] == ["-m"]:
        ours = rest[1].startswith("uniface_jax.")
        return _unknown_flags(rest[1], rest[2:]) if ours else []
    if program == "python" and rest[0].startswith("scripts/"):
        return _unknown_script_flags(rest[0], rest[1:])
    if program == "python" and re.fullmatch(r"\w+\.py", rest[0]):  # a file that the page shows
        return []
    return [f"{program}: a program that these tests do not know"]


@cache
def commands() -> Mapping[str, reference_pages.Command]:
    """Return every command by its module; each is imported once."""
    modules = reference_pages.command_modules()
    return {module: reference_pages.load_command(module) for module in modules}


@cache
def make_targets() -> frozenset[str]:
    return frozenset(re.findall(r"(?m)^([\w-]+):", (ROOT / "Makefile").read_text()))


def _unknown_extras(words: Sequence[str]) -> list[str]:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named = re.findall(r"\[([\w,]+)\]", " ".join(words))
    names = [name for group in named for name in group.split(",")]
    known = extras["optional-dependencies"]
    return [f"[{name}]: no such extra" for name in names if name not in known]


def _unknown_flags(module: str, words: Sequence[str]) -> list[str]:
    """Return the flags among `words` that a command lacks, and values that it refuses."""
    if module.endswith(".COMMAND"):
        return []
    if module not in commands():
        return [f"{module}: no such command"]
    known = {flag.name: flag for flag in commands()[module].flags}
    # Parts from outside have keys of their own; the how-to pages that name them are run as tests.
    outside = any(word.startswith("--config.imports=") for word in words)
    found: list[str] = []
    for word in words:
        name, equals, value = word.lstrip("-").partition("=")
        if outside and _OUTSIDE_KEY.fullmatch(name):
            continue
        if not word.startswith("-") or _PLACEHOLDER.search(name):
            continue
        if "config" in known and name.startswith("config."):
            found += _unknown_keys(name.removeprefix("config."))
        elif name == "config" and "config" in known:
            found += [] if _PLACEHOLDER.search(value) else _no_such_recipe(value)
        elif name in known:
            found += _refused(known[name], value) if equals else []
        elif not (name.startswith("no") and isinstance(known.get(name[2:]), flags.BooleanFlag)):
            found.append(f"{module}: no flag --{name}")
    return found


def _unknown_keys(key: str) -> list[str]:
    known = configs.flatten(configs.base())
    return [] if key in known else [f"config.{key}: no such key"]


def _no_such_recipe(name: str) -> list[str]:
    from uniface_jax.cli import recipes

    if name.startswith("my_"):  # a reader's own
        return []
    try:
        recipes.load(recipes.locate(name))
    except UserError as e:
        return [str(e)]
    return []


def _refused(flag: flags.Flag, value: str) -> list[str]:
    if _PLACEHOLDER.search(value):
        return []
    try:
        flag.parser.parse(value)
    except ValueError as e:
        return [f"--{flag.name}={value}: {e}"]
    return []


def _unknown_script_flags(script: str, words: Sequence[str]) -> list[str]:
    if not (ROOT / script).is_file():
        return [f"{script}: no such script"]
    own = list(words[: words.index("--")] if "--" in words else words)
    more = list(words[len(own) + 1 :])
    found = _unknown_flags("uniface_jax.train", more) if more else []
    known = script_flags(script)
    given = [word.partition("=")[0] for word in own if word.startswith("-")]
    return found + [f"{script}: no flag {flag}" for flag in given if flag not in known]


class _ParserFound(Exception):  # noqa: N818 (it ends the script where it would begin to work)
    pass


@cache
def script_flags(script: str) -> frozenset[str]:
    """Return the flags of a script: those of the parser that it makes, before it parses with it."""
    found: list[argparse.ArgumentParser] = []

    def stop(parser, *_, **__):
        found.append(parser)
        raise _ParserFound

    text = (ROOT / script).read_text()
    # Scripts of PyTorch's side need its extra; no page names them.
    if "ArgumentParser" not in text or "\nimport torch" in text:
        return frozenset()
    with (
        mock.patch.dict(os.environ),
        mock.patch.object(sys, "argv", [script]),
        mock.patch.object(argparse.ArgumentParser, "parse_args", stop),
        contextlib.suppress(_ParserFound),
    ):
        runpy.run_path(str(ROOT / script), run_name="__main__")
    return frozenset(option for a in found[0]._actions for option in a.option_strings)


def _is_known_anywhere(word: str) -> bool:
    """Return whether a flag that stands alone in prose is one of any command or script."""
    name = word.lstrip("-").partition("=")[0]
    if _PLACEHOLDER.search(name) or word == "--":
        return True
    if name.startswith("config."):
        return not _unknown_keys(name.removeprefix("config."))
    if any(not _unknown_flags(module, [word]) for module in commands()):
        return True
    scripts = sorted(path.relative_to(ROOT) for path in (ROOT / "scripts").glob("*.py"))
    return any(f"--{name}" in script_flags(str(script)) for script in scripts)
