"""A whole suite by the command line, on the fixtures' trees; tables hold what metrics.json does."""

import json
import shutil

import pytest

from tests.helpers.containers import FOLDER
from tests.helpers.onnx_graphs import face_network
from uniface_jax.evaluate.report import paper
from uniface_jax.evaluate.report.results import Run
from uniface_jax.evaluate.suite.table import latex, markdown, suite_table


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    """(folder of the fixtures' sets and of one that is damaged, an ONNX network beside it)."""
    folder = tmp_path_factory.mktemp("suite")
    for name in ("lfw", "calfw", "rfw", "tinyface"):
        shutil.copytree(FOLDER / name, folder / "data" / name)
    (folder / "data" / "cfp_fp.bin").write_bytes(b"no pickle")
    face_network(folder / "net.onnx")
    return folder


def rows(text):
    """The cells of a Markdown table's lines."""
    lines = [line for line in text.split("\n") if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


@pytest.mark.slow
def test_a_suite_evaluates_all_and_names_what_fails(faces, run_cli, tmp_path):
    """Numbers are those of metrics.json; a second run takes the kept features, and mends."""
    data, arguments = faces / "data", [f"--model={faces / 'net.onnx'}", f"--output={tmp_path}"]
    done = run_cli("evaluate", *arguments, f"--suite={data}")
    assert done.returncode == 1, done.stderr
    text = (tmp_path / "suite.md").read_text()
    assert (
        text in done.stdout.replace("\n\n\n", "\n\n") + "\n" or text.split("\n")[0] in done.stdout
    )
    heads, own, *published = rows(text)
    cells = dict(zip(heads, own, strict=True))
    sets = json.loads((tmp_path / "metrics.json").read_text())["protocols"]
    accuracy = sets["lists"]["sets"]["calfw"]["accuracy"]["mean"]
    assert cells["CALFW"] == f"{100 * accuracy:.2f}"
    accuracy = sets["lists"]["sets"]["lfw"]["accuracy"]["mean"]
    assert cells["LFW"] == f"{100 * accuracy:.2f}†"  # a paper's column, of other data
    assert cells["CFP-FP"] == "failed"
    summary = sets["rfw"]["sets"]["all races"]
    assert cells["RFW Asian"] == f"{100 * summary['accuracy']['Asian']:.2f}"
    assert cells["RFW std"] == f"{summary['std']:.2f}"
    ranks = sets["tinyface"]["sets"]["tinyface"]["closed_set"]["ranks"]
    assert cells["TinyFace rank-5"] == f"{100 * ranks[1]['rate']:.2f}"
    assert "cfp_fp: failed: " in text
    assert f"{data / 'cfp_fp.bin'}" in text
    ours = [row for row in paper.ROWS if {paper.LFW, paper.CFP_FP} & set(row.values)]
    assert len(published) == len(ours)
    assert f"{ours[0].values[paper.LFW]:.2f}" in published[0]
    tex = (tmp_path / "suite.tex").read_text()
    assert r"\begin{tabular}{ll" in tex
    assert tex.count(r" \\") == 2 + len(published)
    for flag in (f"--data={data}", "--protocol=lists"):
        refused = run_cli("evaluate", *arguments, f"--suite={data}", flag)
        assert refused.returncode == 2
        assert "leave it out" in refused.stderr
    (data / "cfp_fp.bin").unlink()
    again = run_cli("evaluate", *arguments, f"--suite={data}")
    assert again.returncode == 0, again.stderr
    assert "features" in again.stdout
    assert "failed" not in (tmp_path / "suite.md").read_text()


def test_a_set_that_fails_is_named_and_the_others_go_on(faces, run_cli, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(FOLDER / "tinyface", data / "tinyface")
    (data / "cfp_fp.bin").write_bytes(b"no pickle")
    done = run_cli(
        "evaluate", f"--model={faces / 'net.onnx'}", f"--output={tmp_path}", f"--suite={data}"
    )
    assert done.returncode == 1, done.stderr
    heads, own, *_ = rows((tmp_path / "suite.md").read_text())
    cells = dict(zip(heads, own, strict=True))
    assert cells["CFP-FP"] == "failed"
    assert cells["TinyFace rank-20"].replace(".", "").isdigit()
    assert f"cfp_fp: failed: {data / 'cfp_fp.bin'}" in done.stdout
    assert (tmp_path / "report.html").is_file()


def test_names_cannot_break_the_tables():
    metrics = {"protocols": {"lists": {"sets": {"calfw": {"accuracy": {"mean": 0.5}}}}}}
    table = suite_table(Run("a|b<i>\n$x_{", metrics, {}), {"lfw": "x | y <script>"})
    text = markdown(table)
    assert "\n$" not in text
    assert r"a\|b&lt;i>" in text
    assert "<script" not in text
    assert r"\$x\_\{" in latex(table)
    assert len(rows(text.replace(r"\|", ""))[1]) == 4
