"""The report: what is in it, several models in one, and how a browser takes it."""

import html.parser
import json
import re
import shutil
import subprocess
from dataclasses import replace

import pytest

from tests.evaluate.protocols.test_verification import write_set
from tests.helpers.feature_sources import MODEL, FixedFeatures, computed_features
from tests.helpers.make_ijb import make_ijb
from uniface_jax.errors import UserError
from uniface_jax.evaluate.arguments import Parts
from uniface_jax.evaluate.protocols import PROTOCOLS
from uniface_jax.evaluate.protocols.base import Options
from uniface_jax.evaluate.report import reading, report, results

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """(folder, a run by two protocols, the same by another model with a hostile name)."""
    folder = tmp_path_factory.mktemp("report")
    for seed, name in enumerate(("first", "second")):
        write_set(folder / f"{name}.bin", seed)
    ijb, features = make_ijb(folder / "ijb")
    made = []
    for name in ("corners", "<script>alert(1)</script>"):
        source = computed_features(folder / "kept", replace(MODEL, name=name, hash=name * 2))
        found = {
            "verification": PROTOCOLS["verification"].run(
                Parts([folder / "first.bin", folder / "second.bin"]), source, Options()
            ),
            "ijb": PROTOCOLS["ijb"].run(Parts([ijb]), FixedFeatures(features), Options()),
        }
        made.append(results.collect(source, "model.onnx", found))
    results.write(folder / "run", made[0])
    return folder, made


class Page(html.parser.HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.images, self.text = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        values = dict(attributes)
        if tag == "img":
            self.images.append(values)
        assert not {"onclick", "onerror", "onload", "style"} & set(values)
        for name in ("src", "href"):
            assert values.get(name, "#").startswith(("data:image/", "#"))

    def handle_data(self, data):
        self.text.append(data)


def read_page(folder):
    return Page((folder / "report.html").read_text())


def test_a_report_needs_nothing_else_and_shows_everything(runs, tmp_path):
    _, (run, _) = runs
    report.write(tmp_path, [run])
    page = read_page(tmp_path)
    assert not {"script", "link", "iframe", "object"} & set(page.tags)
    svgs = [image["alt"] for image in page.images if "svg" in image["src"][:30]]
    assert svgs == [
        "roc", "det", "first_scores", "second_scores",
        "roc", "det", "cmc", "open_set", "ijbc_scores",
    ]  # fmt: skip
    assert {path.stem for path in (tmp_path / "figures").iterdir()} == {
        f"{protocol}_{name}"
        for protocol, names in [("verification", svgs[:4]), ("ijb", svgs[4:])]
        for name in names
    }
    text = " ".join(page.text)
    accuracy = run.metrics["protocols"]["verification"]["sets"]["first"]["accuracy"]["mean"]
    assert f"{accuracy:.2%} ±" in text
    assert "hardest same pairs" in text
    assert "TPIR@FPIR≤0.1" in text
    assert run.metrics["protocols"]["verification"]["sets"]["second"]["sha256"][:16] in text
    assert len([image for image in page.images if "jpeg" in image["src"][:30]]) == 2 * 2 * 2 * 8
    assert f"{accuracy:.2%} ±" in report.tables(run)


@pytest.fixture(scope="module")
def compared(runs, tmp_path_factory):
    """(the names of three models' runs, the folder of their report)."""
    folder, (run, hostile) = runs
    again = reading.read(folder / "run")
    assert json.dumps(again.metrics) == json.dumps(run.metrics)
    named = results.named_apart([run, hostile, again])
    written = tmp_path_factory.mktemp("compared")
    report.write(written, named)
    return [run.name for run in named], written


def test_several_models_share_figures_set_by_set(runs, compared):
    _, (_, hostile) = runs
    names, folder = compared
    assert names == ["corners", hostile.name, "corners (2)"]
    page = read_page(folder)
    assert "script" not in page.tags
    svgs = [image["alt"] for image in page.images if "svg" in image["src"][:30]]
    for name in ("first_roc", "second_det", "ijbc_roc", "ijbc_1N_G1_cmc", "first_scores_3"):
        assert name in svgs
    rows = re.findall(r"<td[^>]*>corners \(2\)</td>", (folder / "report.html").read_text())
    assert len(rows) >= 4


def test_the_papers_numbers_stand_beside_ones_own(runs, tmp_path):
    _, (run, _) = runs
    metrics = json.loads(json.dumps(run.metrics))
    sets, drawings = metrics["protocols"]["verification"]["sets"], run.drawings["verification"]
    sets["lfw"] = {**sets.pop("first"), "pairs": 6000, "same": 3000}
    drawings = {"verification": {"lfw": drawings["first"], "second": drawings["second"]}}
    del metrics["protocols"]["ijb"]
    report.write(tmp_path, [results.Run("mine", metrics, drawings)])
    text = (tmp_path / "report.html").read_text()
    cell = '<td class="text">{}</td>'.format
    assert cell("UCE-MB λ .6") + cell("CASIA, R50") + "<td>99.55</td>" in text
    own = f"{100 * sets['lfw']['accuracy']['mean']:.2f}"
    assert f"<tr class=own>{cell('mine')}{cell('this evaluation')}<td>{own}" in text
    assert "97.47" not in text


def test_a_folder_of_something_else_is_refused(runs, tmp_path):
    folder, _ = runs
    assert not reading.is_results(tmp_path)
    shutil.copytree(folder / "run", tmp_path / "run")
    (tmp_path / "run/drawings.json").write_text("{}")
    with pytest.raises(UserError, match="are not of one evaluation"):
        reading.read(tmp_path / "run")
    (tmp_path / "run/metrics.json").write_text("{")
    with pytest.raises(UserError, match=r"metrics\.json: not JSON"):
        reading.read(tmp_path / "run")


# Put in front of the page: notes errors, then counts what was drawn.
_WATCH = """<script>
window.failed = [];
window.addEventListener("error", e => failed.push(String(e.message || e.target.src)), true);
window.addEventListener("load", () => {
  const images = [...document.images];
  const drawn = images.filter(i => i.complete && i.naturalWidth > 50 && i.clientWidth > 50);
  const wide = document.documentElement.scrollWidth > window.innerWidth + 1;
  document.body.dataset.found = JSON.stringify(
    {images: images.length, drawn: drawn.length, failed: failed, wide: wide});
});
</script>"""


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
@pytest.mark.parametrize(
    ("models", "width"), [pytest.param(1, 1280, marks=pytest.mark.slow), (3, 1280), (3, 500)]
)
def test_a_browser_draws_every_figure_without_an_error(runs, tmp_path, request, models, width):
    if models == 1:
        report.write(tmp_path, runs[1][:1])
    folder = tmp_path if models == 1 else request.getfixturevalue("compared")[1]
    page = (folder / "report.html").read_text()
    count = len(read_page(folder).images)
    (tmp_path / "watched.html").write_text(page.replace("<head>", f"<head>{_WATCH}", 1))
    done = subprocess.run(
        [
            CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic",
            "--no-first-run", "--disable-background-networking", "--disable-component-update",
            "--disable-sync", "--disable-dev-shm-usage", f"--user-data-dir={tmp_path / 'profile'}",
            f"--window-size={width},900", "--virtual-time-budget=20000", "--enable-logging=stderr",
            "--dump-dom", f"file://{tmp_path / 'watched.html'}",
        ],
        capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    (found,) = re.findall(r'data-found="([^"]*)"', done.stdout)
    found = json.loads(html.unescape(found))
    assert found == {"images": count, "drawn": count, "failed": [], "wide": False}
    assert "CONSOLE" not in done.stderr
