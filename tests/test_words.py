"""The project's words: docstrings begin with a verb, and the spelling is American."""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.paths import ROOT

NO_VERB = re.compile(r"(What|Whether|Of|How|As|The|A|An)\b")
QUESTION = re.compile(r"(What|Whether|Of|How|As)\b")  # a fixture may say what it is
BRITISH = re.compile(
    r"normalis|initialis|optimis|serialis|recognis(?!e\.py)|behaviour|licence|favour|"
    r"colour|\bcentred?\b|\bgrey\b",
    re.IGNORECASE,
)
# Keys of a config, a module's name, and a word in code quotes: they are spelled as they are called.
NAMES = re.compile(
    r"`[^`\n]*`|\baugment\.\w+|^\s*(colour|grey):|\bcolour(?= and grey)|(?<=colour and )grey|"
    r"\bcolour, grey\b|weights[./]recognise",
    re.MULTILINE,
)
PYTHON = sorted((ROOT / "uniface_jax").rglob("*.py"))
OUTSIDE = [path for room in ("tests", "scripts") for path in sorted((ROOT / room).rglob("*.py"))]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def function_docstrings(source: str) -> Iterator[tuple[int, str]]:
    """Yield the line and the docstring of each function that has one."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            docstring = ast.get_docstring(node)
            if docstring:
                yield node.lineno, docstring


def prose(source: str) -> str:
    """Return the docstrings and comments of a Python file, one after another."""
    docstrings = [
        ast.get_docstring(node) or ""
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return "\n".join([*docstrings, *(t.string for t in tokens if t.type == tokenize.COMMENT)])


def british(text: str) -> list[str]:
    """List the British spellings in a text, apart from names."""
    return [found.group() for found in BRITISH.finditer(NAMES.sub("", text))]


@pytest.mark.parametrize("docstring", ["What it is.", "Whether so.", "The sum.", "A sum of x."])
def test_a_docstring_without_a_verb_is_found(docstring):
    ((_, found),) = function_docstrings(f'def f():\n    """{docstring}"""\n')
    assert NO_VERB.match(found)


def test_a_british_spelling_is_found_and_a_key_is_not():
    source = 'x = 1  # the centre\n\ndef f():\n    """Initialise data.augment.colour."""\n'
    assert british(prose(source)) == ["Initialis", "centre"]


@pytest.mark.parametrize(("files", "no_verb"), [(PYTHON, NO_VERB), (OUTSIDE, QUESTION)])
def test_docstrings_of_functions_begin_with_a_verb(files, no_verb):
    wrong = [
        f"{path.relative_to(ROOT)}:{line}: {docstring.splitlines()[0]}"
        for path in files
        for line, docstring in function_docstrings(path.read_text())
        if no_verb.match(docstring)
    ]
    assert not wrong, "\n".join(wrong)


def spelled(path: Path) -> list[str]:
    text = path.read_text()
    return british(prose(text) if path.suffix == ".py" else text)


def test_the_spelling_is_american():
    wrong = {str(path.relative_to(ROOT)): spelled(path) for path in [*PYTHON, *PAGES]}
    assert {path: words for path, words in wrong.items() if words} == {}
