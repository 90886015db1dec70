"""The files that tools of the community read: they parse, and name what there is."""

import re

import yaml

import uniface_jax
from tests.helpers.paths import ROOT


def read(path: str):
    return yaml.safe_load((ROOT / path).read_text())


def test_citation_is_of_this_version_and_of_the_paper():
    citation = read("CITATION.cff")
    assert str(citation["version"]) == uniface_jax.__version__
    assert citation["license"] == "MIT"
    paper = citation["preferred-citation"]
    assert [author["family-names"] for author in paper["authors"]] == [
        "Zhou", "Jia", "Li", "Shen", "Duan",
    ]  # fmt: skip
    assert (paper["year"], paper["start"], paper["end"]) == (2023, 20730, 20739)
    for required in ("cff-version", "message", "title", "authors"):
        assert citation[required]


def test_pre_commit_runs_the_tools_of_make_lint():
    (repository,) = read(".pre-commit-config.yaml")["repos"]
    assert repository["repo"] == "local"  # the pinned tools of .venv, no others
    entries = [hook["entry"] for hook in repository["hooks"]]
    lint = re.search(r"(?m)^lint:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text())[1]
    for tool in ("ruff check", "ruff format", "mypy", "lint-imports"):
        assert tool in lint
        assert any(tool in entry for entry in entries)
    assert all(entry.startswith(".venv/bin/") for entry in entries)


def test_issue_templates_have_what_the_form_needs():
    files = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))
    forms = [file for file in files if file.stem != "config"]
    assert [form.stem for form in forms] == ["bug", "idea"]
    for form in forms:
        content = yaml.safe_load(form.read_text())
        assert content["name"]
        assert content["description"]
        ids = [field["id"] for field in content["body"]]
        assert len(ids) == len(set(ids))
        for field in content["body"]:
            assert field["type"] in ("textarea", "input", "checkboxes", "dropdown", "markdown")
            assert field["attributes"]["label"]
