"""Thresholds from a metrics.json, which may be anyone's."""

import copy
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from uniface_jax.errors import UserError
from uniface_jax.inference.calibration import read_calibration

MODEL = {"name": "net", "sha256": "ab" * 32, "description": "ONNX; mirror sum: computed here"}


def threshold(far, cosine, resolvable=True):
    limits = {} if cosine is None else {"lower": cosine - 0.1, "upper": cosine + 0.1}
    return {
        "far": far,
        "resolvable": resolvable,
        "threshold_cosine": cosine,
        "threshold_cosine_interval": limits,
    }


def document(**sets):
    return {"model": MODEL, "protocols": {"folders": {"sets": sets}}}


def put(folder, content):
    file = folder / "metrics.json"
    file.write_text(json.dumps(content))
    return file


def test_the_threshold_of_a_far_that_was_measured(tmp_path):
    faces = {"thresholds": [threshold(1e-3, 0.3), threshold(1e-6, 0.7, False)]}
    found = read_calibration(put(tmp_path, document(faces=faces)))
    at = found.threshold(0.001)
    assert (at.cosine, at.far, at.measured_on) == (0.3, 1e-3, "folders/faces")
    assert (at.lower, at.upper) == (pytest.approx(0.2), pytest.approx(0.4))
    with pytest.raises(UserError, match=r"FAR 0.0001 was not measured, only 0.001, 1e-06"):
        found.threshold(1e-4)
    with pytest.raises(UserError, match=r"too few pairs for FAR 1e-06 in folders/faces"):
        found.threshold(1e-6)
    found.expect_model(MODEL["sha256"], MODEL["description"])
    with pytest.raises(UserError, match="measured with another model, net"):
        found.expect_model("cd" * 32, MODEL["description"])
    with pytest.raises(UserError, match="here it is ONNX; mirror sum: no"):
        found.expect_model(MODEL["sha256"], "ONNX; mirror sum: no")


def test_one_of_several_sets_has_to_be_named(tmp_path):
    sets = {name: {"thresholds": [threshold(1e-3, c)]} for name, c in (("a", 0.2), ("b", 0.4))}
    found = read_calibration(put(tmp_path, document(**sets)))
    with pytest.raises(UserError, match=r"folders/a, folders/b; name one, .*'folders/a'"):
        found.threshold(1e-3)
    assert found.threshold(1e-3, "b").cosine == found.threshold(1e-3, "folders/b").cosine == 0.4
    with pytest.raises(UserError, match="nothing was measured on c, only on folders/a"):
        found.threshold(1e-3, "c")


def test_a_file_of_an_earlier_version_has_cosines_in_tar_at_far(tmp_path):
    tars = [{"far": 0.01, "resolvable": True, "strict": {"threshold": 0.25, "tar": 0.9}}]
    old = {"accuracy": {"threshold": 1.33}, "tar_at_far": tars}
    sets = {"lfw": old, "raw": {"verification": {"tar_at_far": tars}}}
    found = read_calibration(put(tmp_path, document(**sets)))
    at = found.threshold(0.01, "lfw")
    assert (at.cosine, at.lower, at.upper) == (0.25, 0.25, 0.25)
    assert found.threshold(0.01, "raw").cosine == 0.25


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "the file is no object"),
        ("{", "not JSON"),
        (json.dumps({"model": MODEL}), "protocols is no object"),
        (json.dumps({"model": {"name": 1}}), "model.name is no text"),
        (json.dumps(document()), "no threshold at any FAR"),
        (json.dumps(document(a={"thresholds": 3})), "folders/a: thresholds are no list"),
        (json.dumps(document(a={"thresholds": [threshold(0, 0.3)]})), "a threshold at FAR 0"),
        (json.dumps(document(a={"thresholds": [threshold(2, 0.3)]})), r"folders/a.far is 2"),
        (json.dumps(document(a={"thresholds": [threshold(0.1, 1.33)]})), r"1.33; .* in -1..1"),
        (json.dumps(document(a={"thresholds": [threshold(0.1, float("nan"))]})), "is nan"),
        (
            json.dumps(
                document(
                    a={
                        "thresholds": [
                            threshold(0.1, 0.3)
                            | {"threshold_cosine_interval": {"lower": 0.5, "upper": 0.6}}
                        ]
                    }
                )
            ),
            "outside of its interval",
        ),
    ],
)
def test_what_cannot_be_a_calibration_is_refused_in_one_line(tmp_path, content, message):
    file = tmp_path / "metrics.json"
    file.write_text(content)
    with pytest.raises(UserError, match=message) as refused:
        read_calibration(file)
    assert str(file) in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_missing_file_says_what_writes_it(tmp_path):
    with pytest.raises(UserError, match=r"metrics.json: No such file.*evaluate --output writes it"):
        read_calibration(tmp_path / "metrics.json")


values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=4,
)


@given(st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_value_anywhere_is_read_or_refused(tmp_path, data):
    # A copy: what all documents share must not be changed for the next example.
    content = copy.deepcopy(document(a={"thresholds": [threshold(0.1, 0.3)]}, b={"thresholds": []}))
    place, steps = content, data.draw(st.integers(1, 8))
    for step in range(steps):
        keys = list(place) if isinstance(place, dict) else range(len(place))
        key = data.draw(st.sampled_from(list(keys)))
        if step == steps - 1 or not isinstance(place[key], dict | list) or not place[key]:
            break
        if data.draw(st.integers(0, 2)) == 0:
            break
        place = place[key]
    place[key] = data.draw(values)
    file = put(tmp_path, content)
    refused = ""
    try:
        read_calibration(file).threshold(0.1)
    except UserError as e:
        refused = str(e)
    assert "\n" not in refused
