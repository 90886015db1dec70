"""Training sets of several sources: what a run makes of them, and what a resumed one finds."""

import json
import shutil

import jax
import numpy as np
import pytest

from tests.helpers import demo_run
from tests.helpers.batches import assert_equal, take
from uniface_jax import config as configs
from uniface_jax.checkpoints import reading
from uniface_jax.data.sources.joined import JoinedSource
from uniface_jax.data.sources.synthetic import SyntheticSource
from uniface_jax.errors import UserError
from uniface_jax.train.training_set import (
    changed_sets,
    describe,
    epoch_length,
    make_order,
    open_training_set,
    records_of,
    with_label_noise,
)

TWO = "synthetic:2:10,synthetic:3:30"


def opened(train=TWO, **changed):
    config = configs.base()
    config.data.train = train
    config.data.update(changed)
    return config, open_training_set(config)


def test_ratios_make_an_order_and_lines_of_the_log():
    config, source = opened(ratios=(2.0, 0.5))
    order = make_order(config, source)
    assert order.quotas.tolist() == [20, 15]
    assert epoch_length(source, order) == 35
    assert describe(source, order, config) == [
        "  synthetic:2:10: 10 images of 2 people, ratio 2: 57.1% of an epoch",
        "  synthetic:3:30: 30 images of 3 people, ratio 0.5: 42.9% of an epoch",
    ]
    for ratios in ((), (1, 1.0)):
        config, source = opened(ratios=ratios)
        assert make_order(config, source) is None
        assert epoch_length(source, None) == 40
    assert describe(source.sources[0], None, config) == []


def test_balance_and_noise_are_told_and_kept_of_several_sets():
    config, clean = opened(balance="classes", class_cap=7, label_noise=0.25, ratios=(2.0, 1.0))
    source = with_label_noise(config, clean)
    order = make_order(config, source)
    assert order.quotas.tolist() == [7, 7, 7, 7, 7]
    assert describe(source, order, config)[2:] == [
        "  balance classes: an epoch is 35 images, 7 to 7 of each of 5 classes",
        "  label noise: 10 of 40 images have exchanged their labels (config.data.label_noise=0.25)",
    ]
    labels = source.classes(np.arange(40))
    np.testing.assert_array_equal(labels[order.table], np.sort(labels))
    assert records_of(clean) == records_of(opened()[1])
    assert with_label_noise(opened()[0], clean) is clean


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"ratios": (1,)}, r"ratios=\(1,\): 1 for the 2 sets of config.data.train"),
        ({"ratios": (1, 0.01)}, r"0.01 of the 30 images of synthetic:3:30 is none; .* 0.033"),
        ({"people": "by_name"}, r"synthetic:2:10: has no names of its people"),
        ({"people": "by_name", "train": "synthetic:2:10"}, r"is one set; expected several"),
    ],
)
def test_settings_that_do_not_fit_the_sets(changed, words):
    with pytest.raises(UserError, match=words):
        make_order(*opened(**changed))


@pytest.mark.parametrize("ratios", [(0.0, 1.0), (-1,), ("x",), (True,), (float("nan"),), (1001,)])
def test_ratios_out_of_range(ratios):
    config = configs.base()
    config.data.ratios = ratios
    with pytest.raises(UserError, match=r"config.data.ratios=\[.*\]: must be numbers above 0"):
        configs.check_values(config)


def test_a_changed_set_is_told_and_other_people_are_refused():
    _, source = opened()
    now = records_of(source)
    assert json.loads(json.dumps(now)) == now
    assert changed_sets(None, now) == changed_sets(now, now) == ""
    fewer = [now[0], {**now[1], "images": 29}]
    assert changed_sets(fewer, now) == (
        "synthetic:3:30: num_examples is 30, but the run was trained on 29"
    )
    other = [{**now[0], "fingerprint": "0"}, now[1]]
    assert "synthetic:2:10: is not the set that the run was trained on" in changed_sets(other, now)
    assert changed_sets([{**now[0], "fingerprint": ""}], now) == ""  # it was not known then
    with pytest.raises(UserError, match=r"synthetic:3:30: has other classes than"):
        changed_sets([now[0], {**now[1], "classes": 4}], now)
    with pytest.raises(UserError, match=r"synthetic:2:10: has other names of people"):
        changed_sets([{**now[0], "people": "0"}, now[1]], now)


def test_batches_of_several_sets_are_the_same_in_processes_and_from_any_step():
    config, source = opened(ratios=(2.0, 0.5))
    order = make_order(config, source)
    whole = take(source, 6, order=order)
    assert {int(label) for batch in whole for label in batch["label"]} == {0, 1, 2, 3, 4}
    records = np.concatenate([batch["index"] for batch in whole])
    labels = np.concatenate([batch["label"] for batch in whole])
    np.testing.assert_array_equal(labels, [source[i].label for i in records])
    assert_equal(take(source, 2, start_step=4, order=order, kind="processes", workers=1), whole[4:])
    halves = [
        take(source, 3, order=order, process_index=i, process_count=2)[2]["index"] for i in (0, 1)
    ]
    np.testing.assert_array_equal(np.concatenate(halves), whole[2]["index"])


@pytest.mark.slow
def test_a_run_on_two_sets_is_resumed_to_the_bit_and_refuses_a_changed_one(tmp_path, run_cli):
    train, _ = demo_run.make_data(tmp_path)
    people = tmp_path / "more"
    for name in ("p3", "p4"):
        shutil.copytree(tmp_path / "people" / name, people / name)
        (people / name / "0.png").unlink()
    sets = {"data.people": "by_name", "data.ratios": "(1,0.5)"}
    both = f"{train},{people}"
    whole = demo_run.flags(both, **sets)
    done = run_cli("train", f"--workdir={tmp_path / 'whole'}", *whole)
    assert done.returncode == 0, done.stderr
    assert "54 images of 5 classes" in done.stdout
    assert "  2 of their people are joined by name" in done.stdout
    part = demo_run.flags(both, **sets, steps=4)
    assert run_cli("train", f"--workdir={tmp_path / 'part'}", *part).returncode == 0
    done = run_cli("train", f"--workdir={tmp_path / 'part'}", "--extend", *whole)
    assert done.returncode == 0, done.stderr
    assert "resumed" in done.stdout
    found = [reading.read(tmp_path / name) for name in ("whole", "part")]
    jax.tree.map(np.testing.assert_array_equal, found[0][0], found[1][0])
    record = json.loads((tmp_path / "whole" / "run.json").read_text())
    assert record["data"]["sets"] == found[0][1]["data"]["sets"]
    (people / "p3" / "1.png").rename(people / "p3" / "9.png")
    done = run_cli("train", f"--workdir={tmp_path / 'whole'}", *whole)
    assert done.returncode == 2
    assert f"{people}: is not the set that the run was trained on" in done.stderr


def test_joined_sets_are_converted_by_the_same_rules(tmp_path, run_cli):
    demo_run.make_data(tmp_path)
    people = tmp_path / "people"
    other = tmp_path / "other"
    shutil.copytree(people / "p0", other / "p0")
    (other / "p0" / "0.png").unlink()
    shutil.copytree(people / "p1", other / "new")
    done = run_cli(
        "convert", f"{people},{other}", tmp_path / "both", "--people=by_name", "--verify"
    )
    assert done.returncode == 0, done.stderr
    assert "verified" in done.stdout
    _, source = opened(str(tmp_path / "both"))
    assert (len(source), source.class_names) == (55, ["p0", "p1", "p2", "p3", "p4", "new"])
    names = {source[i].name for i in range(len(source)) if source[i].label == 0}
    assert names == {f"people/p0/{i}.png" for i in range(8)} | {
        f"other/p0/{i}.png" for i in range(1, 8)
    }
    assert isinstance(opened(f"{people},{other}")[1], JoinedSource)
    assert len(records_of(SyntheticSource(2, 4))) == 1
