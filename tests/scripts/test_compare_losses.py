"""scripts/compare_losses.py: its table, its sets, and a whole comparison that is resumed."""

import io
import json
import sys
import tarfile
from types import SimpleNamespace

import compare_losses
import comparison_sets
import comparison_table
import numpy as np
import pytest

from uniface_jax.config import base
from uniface_jax.config.keys import flatten
from uniface_jax.data.formats.bin_pairs import write_pairs
from uniface_jax.data.formats.images import encode_png
from uniface_jax.data.sources.opening import open_source
from uniface_jax.errors import UserError
from uniface_jax.evaluate.report import paper

KNOWN = flatten(base())


def result(accuracy, **prototypes):
    """Return a result in which each number is as good as the accuracy, over five draws."""
    draws = {key: [accuracy + x for x in (0, -0.02, 0.01, 0.02, -0.01)] for key in
             comparison_table.COLUMNS}  # fmt: skip
    return {
        "draws": draws,
        "people": {"seen": 10, "unseen": 10},
        "prototypes": {"rows": 1.0, "equal_error": 0.01} | prototypes,
        "loss": 1.0,
        "seconds": {"training": 1.0, "measuring": 1.0},
    }


def test_table_says_what_differs_by_more_than_its_interval():
    entries = {name: compare_losses.LOSSES[name] for name in ("uce", "nsl", "cosface")}
    runs = {
        "uce": [result(0.8, learned=0.2, error=0.05), result(0.82, learned=0.2, error=0.05)],
        "nsl": [result(0.7), result(0.72)],
        "cosface": [result(0.8), result(0.83)],
    }
    compared = SimpleNamespace(name="demo", about="three faces")
    report = comparison_table.report([compared], entries, {"demo": runs}, "uce")
    json.dumps(report)
    lines = comparison_table.text(report).splitlines()
    assert any("| UCE, m .4 | 47.45 (UCE-M) | 81.0 (" in line and "1.00 / 5.00" in line
               for line in lines)  # fmt: skip
    differences = [line for line in lines if "| **-10.0 (" in line]
    assert len(differences) == 1
    assert "NSL" in differences[0]
    (cosface,) = [line for line in lines if line.startswith("| CosFace, m .4 | +0.5")]
    assert "**" not in cosface


def test_every_entry_is_whole_or_says_what_it_lacks():
    rows = {row.method for row in paper.ROWS}
    for entry in compare_losses.LOSSES.values():
        assert entry.paper in rows | {""}
        lacking = entry.missing(KNOWN)
        if not lacking:
            assert set(entry.settings) <= set(KNOWN)
    lost = compare_losses.Entry("x", {"loss.name": "uce", "loss.no_such_key": 1})
    assert lost.missing(KNOWN) == "loss.no_such_key"
    assert compare_losses.Entry("x", {"loss.name": "nosuch"}).missing(KNOWN) == "loss.name=nosuch"


def test_with_a_teacher_each_loss_is_there_twice():
    args = compare_losses.parser().parse_args(["--losses=uce,nsl", "--teacher=sface.onnx"])
    entries = compare_losses.chosen_entries(args)
    assert list(entries) == ["uce", "nsl", "uce_distilled", "nsl_distilled"]
    entry = entries["nsl_distilled"]
    assert (entry.title, entry.published()) == ("NSL, distilled", "-")
    assert entry.settings == {"loss.name": "nsl", "distill.teacher": "sface.onnx"}
    assert not entry.missing(KNOWN)


def test_wrong_flags_are_refused_in_one_line(monkeypatch, tmp_path):
    for flags, words in (
        (["--sets=nowhere"], "--sets=nowhere: expected some of demo"),
        (["--sets=lfw-all"], "--lfw names the folder"),
        (["--losses=nosuch"], "--losses=nosuch: expected"),
        (["--losses=nsl"], "--baseline=uce: expected one of nsl"),
        (["--seeds=0"], "must be at least 1"),
        (["--set=model.nosuch=3"], "expected KEY=VALUE"),
        (["--train=x"], "given together"),
    ):
        monkeypatch.setattr(sys, "argv", ["x", f"--workdir={tmp_path}", *flags])
        with pytest.raises(UserError, match=words):
            compare_losses.main()


@pytest.fixture
def lfw(tmp_path):
    """A folder as LFW's: seven people, of whom three train and one of these has one image."""
    counts = {"Ann": 3, "Bob": 2, "Cid": 1, "Dee": 12, "Eve": 2, "Flo": 1, "Gus": 2}
    rng = np.random.default_rng(0)
    with tarfile.open(tmp_path / "lfw_112.tar", "w") as tar:
        for name, count in counts.items():
            for number in range(1, count + 1):
                image = encode_png(rng.integers(0, 256, (112, 112, 3), dtype=np.uint8))
                member = tarfile.TarInfo(f"{name}/{name}_{number:04d}.png")
                member.size = len(image)
                tar.addfile(member, io.BytesIO(image))
    train, test = ("Ann", "Bob", "Cid"), ("Dee", "Eve", "Flo", "Gus")
    for part, names in (("Train", train), ("Test", test)):
        lines = [str(len(names)), *(f"{name}\t{counts[name]}" for name in names)]
        (tmp_path / f"peopleDev{part}.txt").write_text("\n".join(lines) + "\n")
    (tmp_path / "pairsDevTrain.txt").write_text(
        "3\nAnn\t1\t3\nBob\t1\t2\nAnn\t1\t2\nAnn\t1\tBob\t1\nAnn\t2\tCid\t1\nBob\t2\tCid\t1\n"
    )
    (tmp_path / "pairsDevTest.txt").write_text(
        "2\nDee\t11\t12\nEve\t1\t2\nDee\t1\tFlo\t1\nEve\t1\tGus\t2\n"
    )
    return tmp_path


def test_lfw_is_split_by_its_lists(lfw, tmp_path):
    whole, two = comparison_sets.lfw_sets(lfw, tmp_path / "sets", ["lfw-all", "lfw-two"])
    for compared, people, images in ((whole, 3, 6), (two, 2, 5)):
        source = open_source(compared.train)
        assert (source.num_classes, len(source)) == (people, images)
    assert len(whole.seen.pairs.same) == 6
    assert len(two.seen.pairs.same) == 4  # Cid has not been seen
    unseen = whole.unseen
    # Five of Dee's twelve, and the two that the list names besides.
    assert (len(unseen.images), len(unseen.crossed), unseen.count) == (12, 10, 4)
    assert unseen.pairs.same.tolist() == [True, False, True, False]
    for pairs in (unseen.pairs, whole.seen.pairs):
        equal = pairs.people[pairs.first] == pairs.people[pairs.second]
        assert (equal == pairs.same).all()
    (lfw / "pairsDevTest.txt").write_text("1\nDee\t1\t99\nDee\t1\tEve\t1\n")
    with pytest.raises(UserError, match=r"pairsDevTest.txt: line 2: no such image"):
        comparison_sets.lfw_sets(lfw, tmp_path / "sets", ["lfw-two"])


@pytest.mark.slow
def test_a_comparison_is_resumed_and_not_done_again(tmp_path, monkeypatch, capsys):
    rng = np.random.default_rng(0)
    images = [encode_png(rng.integers(0, 256, (112, 112, 3), dtype=np.uint8)) for _ in range(20)]
    first, second = np.triu_indices(20, 1)
    order = rng.permutation(len(first))
    first, second = first[order], second[order]
    write_pairs(tmp_path / "other.bin", images, first, second, first // 4 == second // 4)
    file, runs = tmp_path / "all.json", tmp_path / "runs"
    flags = [
        "--train=synthetic:4:24", f"--pairs={tmp_path / 'other.bin'}", "--losses=uce,nsl",
        "--seeds=1", "--epochs=2", "--resamples=20", f"--workdir={runs}", f"--json={file}",
        "--set=batch_size=16", "--set=model.width=2", "--set=model.embedding_size=8",
    ]  # fmt: skip
    monkeypatch.setattr(sys, "argv", ["x", *flags])
    compare_losses.main()
    shown = capsys.readouterr().out
    report = json.loads(file.read_text())
    assert set(report["own"]["losses"]) == {"uce", "nsl"}
    assert "error" in report["own"]["losses"]["uce"]["prototypes"]
    measured = runs / "own" / "uce-0" / compare_losses.RESULT
    before, table = measured.stat().st_mtime_ns, shown[shown.index("**own**") :]
    assert "seconds" not in table
    file.unlink()
    (runs / "own" / "nsl-0" / compare_losses.RESULT).unlink()  # trained, but not measured
    compare_losses.main()
    again = capsys.readouterr().out
    assert again[again.index("**own**") :] == table
    assert measured.stat().st_mtime_ns == before
    monkeypatch.setattr(sys, "argv", ["x", *flags, "--set=optim.lr=0.2"])
    with pytest.raises(UserError, match="of another budget or version"):
        compare_losses.main()
