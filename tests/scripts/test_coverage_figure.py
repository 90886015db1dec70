"""The share of the package that tests run, which is kept and may not fall."""

import json

import coverage_figure as script
import pytest


def summary(lines: int, branches: int, of_branches: int = 50) -> dict[str, int]:
    return {
        "covered_lines": lines, "num_statements": 200,
        "covered_branches": branches, "num_branches": of_branches,
    }  # fmt: skip


@pytest.fixture
def report(tmp_path):
    files = {
        "uniface_jax/head/loss.py": {"summary": summary(180, 45)},
        "uniface_jax/head/draws.py": {"summary": summary(200, 35)},
        "uniface_jax/cli.py": {"summary": summary(100, 0)},
        "uniface_jax/errors.py": {"summary": summary(200, 0, of_branches=0)},
    }
    totals = {"covered_lines": 480, "num_statements": 600}
    totals |= {"covered_branches": 80, "num_branches": 150}
    path = tmp_path / "report.json"
    path.write_text(json.dumps({"files": files, "totals": totals}))
    return path


@pytest.mark.parametrize(
    ("kept", "said"),
    [
        ({"in all": {"lines": 80.0, "branches": 53.33}}, ""),
        ({"in all": {"lines": 80.09}, "uniface_jax/gone": {"lines": 100.0}}, ""),  # rounding
        ({"in all": {"lines": 80.2}}, "in all: 80.00 % of lines are run by tests, kept were 80.20"),
        ({"uniface_jax/head": {"branches": 81.0}}, "uniface_jax/head: 80.00 % of branches are run"),
    ],
)
def test_what_falls_is_told_and_fails(kept, said, report, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(script, "KEPT", tmp_path / "kept.json")
    script.KEPT.write_text(json.dumps(kept))
    assert script.main(report, keep=False) == bool(said)
    printed, errors = capsys.readouterr()
    assert printed.splitlines() == [
        "  50.00 % of lines    0.00 % of branches  uniface_jax/cli.py",
        " 100.00 % of lines  100.00 % of branches  uniface_jax/errors.py",
        "  95.00 % of lines   80.00 % of branches  uniface_jax/head",
        "  80.00 % of lines   53.33 % of branches  in all",
    ]
    assert errors.startswith(said)
    assert bool(errors) == bool(said)


def test_the_figure_is_kept_anew(report, tmp_path, monkeypatch):
    monkeypatch.setattr(script, "KEPT", tmp_path / "kept.json")
    assert script.main(report, keep=True) == 0
    kept = json.loads(script.KEPT.read_text())
    assert kept["in all"] == {"lines": 80.0, "branches": 53.33}
    assert kept["uniface_jax/head"] == {"lines": 95.0, "branches": 80.0}
