"""Every command in README and docs names what there is, and is run, or its page says why not."""

import pytest

from tests.helpers import doc_commands
from tests.helpers.doc_commands import Block, blocks, problems, spans
from tests.helpers.paths import ROOT

PAGES = [pytest.param(page, id=str(page.relative_to(ROOT))) for page in doc_commands.PAGES]


@pytest.mark.parametrize("page", PAGES)
def test_programs_and_flags_exist(page):
    wrong = [
        f"{block}: {problem}"
        for block in blocks(page)
        for command in block.commands
        for problem in problems(command)
    ]
    wrong += [f"`{span}`: {problem}" for span in spans(page) for problem in problems(span)]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("command", "problem"),
    [
        ("uniface train --config=demo --nonsense=1", "no flag --nonsense"),
        ("uniface train --config=demo --config.optim.rate=1", "config.optim.rate: no such key"),
        ("uniface train --config=demon", "no such recipe"),
        ("uniface export --format=pickle", "--format=pickle"),
        ("uniface dance", "no such command"),
        ("cd x && uniface plan --devises=8", "no flag --devises"),
        ("python scripts/recipes.py --yaml=x", "no flag --yaml"),
        ("python scripts/recipe.py", "no such script"),
        ("python scripts/launch_local.py 2 --devices=2 -- --wrokdir=x", "no flag --wrokdir"),
        ("scripts/tpu_pod.sh NAME ZONE --wrokdir=x", "no flag --wrokdir"),
        ("make dmo", "no such target"),
        ('pip install ".[cuda12345]"', "no such extra"),
        ("rm -rf x", "do not know"),
        ("--nonsense", "no command has this flag"),
    ],
)
def test_finds_what_is_wrong(command, problem):
    assert problem in " ".join(problems(command))


def test_reads_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr(doc_commands, "ROOT", tmp_path)
    page = tmp_path / "page.md"
    page.write_text(
        "```sh\none \\\n  more  # why\ntwo 'open\nclosed'\n```\n\n<!-- not run: it is slow -->\n"
        "```sh\nthree\n```\n\n```sh\nfour\n```\n\n```text\nno command\n```\n\n"
        "```python\nfive()\nsix()\n```\n"
    )
    assert blocks(page) == [
        Block("page.md", 2, ("one \\\n  more  # why", "two 'open\nclosed'"), None),
        Block("page.md", 10, ("three",), "it is slow"),
        Block("page.md", 14, ("four",), None),
        Block("page.md", 22, ("python - <<'END'\nfive()\nsix()\nEND",), None),
    ]
