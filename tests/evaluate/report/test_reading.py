"""Results from elsewhere: damaged metrics are refused, damaged drawings left out and named."""

import copy
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.evaluate.protocols.test_verification import write_set
from tests.helpers.examples import examples
from tests.helpers.feature_sources import computed_features
from tests.helpers.html_pages import check_is_clean
from uniface_jax.errors import UserError
from uniface_jax.evaluate.arguments import Parts
from uniface_jax.evaluate.protocols import PROTOCOLS
from uniface_jax.evaluate.protocols.base import Options
from uniface_jax.evaluate.report import reading, report, results

LINES = {
    "cmc": {"ranks": [1, 2, 30], "rates": [0.5, 0.75, 1]},
    "open_set": {"fpir": [0.01, 0.1, 1], "tpir": [0.1, 0.2, 1.0]},
    "open_set_det": {"fpir": [0.01, 0.1, 1], "fnir": [0.9, 0.8, 0.0]},
    "reject": {"lines": {"FMR 0.1": {"rejected": [0, 0.5, 0.95], "fnmr": [0.2, 0.1, 0.0]}}},
    "distractors": {"distractors": [10, 100], "rates": [0.9, 0.8]},
}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The two JSON files of an evaluation, with a drawing of every kind."""
    folder = tmp_path_factory.mktemp("results")
    write_set(folder / "faces.bin", 0)
    found = PROTOCOLS["verification"].run(
        Parts([folder / "faces.bin"]), computed_features(folder / "kept"), Options()
    )
    run = results.collect(computed_features(folder / "kept"), "net.onnx", {"verification": found})
    metrics, drawings = json.loads(json.dumps([run.metrics, run.drawings]))
    drawings["verification"]["faces"] |= LINES
    return metrics, drawings


@pytest.fixture(autouse=True)
def laid_out_only(monkeypatch):
    """Figures are laid out, which is where names and numbers fail, and not painted."""

    def save(path, figure):
        figure.draw_without_rendering()
        return "<svg/>"

    monkeypatch.setattr(report, "_saved", save)


@pytest.fixture
def not_drawn(monkeypatch):
    """Figures are left out, where a test is of what stands beside them."""
    monkeypatch.setattr(report, "_saved", lambda path, figure: "<svg/>")


def put(folder, metrics, drawings):
    folder.mkdir(exist_ok=True)
    (folder / results.METRICS).write_text(json.dumps(metrics))
    (folder / results.DRAWINGS).write_text(json.dumps(drawings))
    return folder


def test_what_was_written_is_read(written, tmp_path):
    run = reading.read(put(tmp_path, *written))
    assert (run.metrics, run.drawings, run.notes) == (*written, [])
    report.write(tmp_path, [run])


def at(document, *path):
    """The container of the last step of a path, in a document."""
    for step in path[:-1]:
        document = document[step]
    return document, path[-1]


SET = ("protocols", "verification", "sets", "faces")


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("model",), [], "model is a list"),
        (("model", "name"), 7, "model.name is a number; expected text"),
        (("model", "name"), "", "model.name is empty"),
        (("model", "sha256"), None, "model.sha256 is missing"),
        (("model", "description"), "x" * 5000, "model.description has 5000 letters"),
        (("versions",), [], "versions is a list"),
        (("versions",), None, "versions is missing"),
        (("versions", "jax"), 1, "versions.jax is a number"),
        (("protocols",), 1, "protocols is a number"),
        (("protocols",), {}, "protocols is empty"),
        (("protocols", "evil"), {}, "protocol 'evil' is none of verification"),
        (("protocols", "verification"), None, "protocols.verification is missing"),
        (("protocols", "verification", "sets"), [], "sets is a list"),
        (("protocols", "verification", "sets"), {}, "0 sets; expected 1"),
        (SET, "x", "faces is text; expected an object"),
        ((*SET, "auc"), "<script>", "not what verification writes"),
        ((*SET, "auc"), float("nan"), "holds nan"),
        ((*SET, "accuracy"), [], "not what verification writes"),
        ((*SET, "tar_at_far"), {"far": 1}, "not what verification writes"),
        ((*SET, "images"), "many", "not what verification writes"),
        ((*SET, "pairs"), [[[[[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]]]]], "24 levels deep"),
    ],
)
def test_metrics_that_cannot_be_shown_are_refused(written, tmp_path, path, value, message):
    metrics = copy.deepcopy(written[0])
    container, key = at(metrics, *path)
    container[key] = value
    with pytest.raises(UserError, match=rf"metrics\.json: .*{message}"):
        reading.read(put(tmp_path, metrics, written[1]))


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("roc",), [], "roc: it is a list"),
        (("roc", "far"), [1], "roc: 1 far for"),
        (("roc", "far"), [float("nan")] * 3, "roc: far holds nan"),
        (("roc", "tar"), [], "roc: tar has 0 numbers"),
        (("roc", "tar"), ["a"], "roc: tar holds text"),
        (("roc", "tar"), [0.5] * 10_001, "roc: tar has 10001 numbers"),
        (("roc", "same"), 0, "roc: same holds 0"),
        (("roc", "same"), 0.5, "roc: same is a number; expected a count"),
        (("roc", "different"), True, "roc: different holds true or false"),
        (("counts", "thresholds"), [], "counts: thresholds has 0 numbers"),
        (("counts", "thresholds", 0), -9, "counts: thresholds do not fall"),
        (("counts", "same"), [1, 2], "counts: 2 counts of same for"),
        (("counts", "different", 0), 1e12, "counts: counts of different do not rise"),
        (("scores", "edges"), [1, 0], "scores: edges do not rise"),
        (("scores", "edges"), [1, 2, 3], "scores: 60 bins of same between 3 edges"),
        (("scores", "thresholds"), [], "scores: thresholds is a list"),
        (("scores", "thresholds"), {"a": None}, "scores: thresholds holds missing"),
        (("pairs", "same"), {}, "pairs: same is an object"),
        (("pairs", "same", 0), 7, "pairs: a pair of same is a number"),
        (("pairs", "same", 0, "score"), "high", "pairs: score holds text"),
        (("pairs", "same", 0, "sides"), [], "pairs: a pair with 0 sides"),
        (("pairs", "same", 0, "sides", 0, "label"), 7, "pairs: label is a number"),
        (("pairs", "same", 0, "sides", 0, "picture"), "http://x/", "pairs: a picture that is no"),
        (("cmc", "ranks"), [0, 1, 2], "cmc: ranks holds 0"),
        (("distractors", "rates"), [1.5, 0], "distractors: rates holds 1.5"),
        (("open_set_det", "fnir"), [2, 1, 0], "open_set_det: fnir holds 2"),
        (("reject", "lines"), {}, "reject: 0 lines; expected 1 to"),
        (("reject", "lines", "FMR 0.1", "fnmr"), [1], "reject: 3 rejected for 1 fnmr"),
    ],
)
def test_a_damaged_drawing_is_left_out_and_named(
    written, tmp_path, not_drawn, path, value, message
):
    drawings = copy.deepcopy(written[1])
    container, key = at(drawings["verification"]["faces"], *path)
    container[key] = value
    run = reading.read(put(tmp_path, written[0], drawings))
    (note,) = run.notes
    assert f"drawings.json: verification, faces: {message}" in note
    left = written[1]["verification"]["faces"].keys() - {path[0]}
    assert run.drawings["verification"]["faces"].keys() == left
    report.write(tmp_path, [run])
    assert message in check_is_clean((tmp_path / "report.html").read_text()).text


def steps(document):
    """Every path in a document."""
    if isinstance(document, dict | list):
        items = document.items() if isinstance(document, dict) else enumerate(document[:3])
        for key, value in items:
            yield (key,)
            yield from ((key, *below) for below in steps(value))


HOSTILE = ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "$\\frac{", "_x", "",
           "a" * 300, "../../x", "\x1b[2J\n", "\udceb", "http://127.0.0.1/x"]  # fmt: skip
values = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(), st.sampled_from(HOSTILE), st.text()
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.sampled_from(["far", "tar", "name", *HOSTILE]), inner, max_size=3),
    ),
    max_leaves=5,
)


@settings(examples(40), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_change_is_refused_or_shown_as_text(written, tmp_path_factory, data):
    both = copy.deepcopy(list(written))
    paths = list(steps(both))
    for _ in range(data.draw(st.integers(1, 3))):
        path = data.draw(st.sampled_from(paths))
        try:
            container, key = at(both, *path)
            if isinstance(container, dict) and data.draw(st.booleans()):
                container[data.draw(st.sampled_from(HOSTILE))] = container.pop(key)
            else:
                container[key] = data.draw(values)
        except (KeyError, IndexError, TypeError):
            continue  # an earlier change took the place of what it is in
    folder = put(tmp_path_factory.mktemp("changed"), *both)
    try:
        run = reading.read(folder)
    except UserError as e:
        refused = e
    else:
        refused = None
    if refused is not None:
        assert str(refused).startswith(str(folder))
        return
    report.write(folder, [run])
    check_is_clean((folder / "report.html").read_text(errors="strict"))
    report.tables(run).encode()
