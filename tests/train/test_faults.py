"""Locks, watchdog, logs on a full disk, layouts: the parts; whole runs are in test_chaos.py."""

import json
import os
import subprocess
import sys
import textwrap

import pytest

from tests.helpers.disks import fill
from tests.helpers.paths import ROOT
from uniface_jax import config as configs
from uniface_jax.data.sources.synthetic import SyntheticSource
from uniface_jax.errors import UserError
from uniface_jax.train import batch_norm_groups, workdir_lock
from uniface_jax.train.nonfinite import FiniteGuard, NotFiniteError
from uniface_jax.train.run_log import RunLog


def no_warning(text):
    raise AssertionError(text)


def test_a_lock_excludes_and_says_who_holds_it(tmp_path):
    with workdir_lock.hold(tmp_path, no_warning):
        words = rf"in use by process {os.getpid()} on .* since 20\d\d"
        with pytest.raises(UserError, match=words), workdir_lock.hold(tmp_path, no_warning):
            pass
        with workdir_lock.hold(tmp_path / "other", no_warning):
            pass
    with workdir_lock.hold(tmp_path, no_warning):
        pass


def test_a_killed_holder_leaves_no_lock(tmp_path):
    code = f"""
        import os
        from pathlib import Path
        from uniface_jax.train import workdir_lock
        with workdir_lock.hold(Path({str(tmp_path)!r}), print):
            os.kill(os.getpid(), 9)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], cwd=ROOT)
    assert done.returncode == -9
    with workdir_lock.hold(tmp_path, no_warning):
        pass


def test_without_locks_it_warns(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(workdir_lock.fcntl, "flock", refuse)
    warnings = []
    with workdir_lock.hold(tmp_path, warnings.append):
        pass
    assert "this file system has no locks (No locks available)" in warnings[0]


def watch(tmp_path, body: str):
    code = f"""
        import os, signal, subprocess, sys, time
        from pathlib import Path
        from uniface_jax.train.watchdog import Watchdog
        with Watchdog(1.0, Path({str(tmp_path / "hang.txt")!r}), "process 3 of 4", 76) as watchdog:
            {body}
    """
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        cwd=ROOT, capture_output=True, text=True, timeout=60,
    )  # fmt: skip


def test_the_watchdog_says_where_a_run_hangs(tmp_path):
    done = watch(tmp_path, "watchdog.at('waiting for the input of step 7'); time.sleep(50)")
    assert done.returncode == 76
    expected = "process 3 of 4: nothing moved for 1 s while waiting for the input of step 7"
    assert expected in done.stderr
    report = (tmp_path / "hang.txt").read_text()
    assert expected in report
    assert 'File "<string>", line 6' in report  # where the main thread sleeps


@pytest.mark.parametrize(
    "body",
    [
        "[(watchdog.at('moving'), time.sleep(0.4)) for _ in range(8)]",
        # Stopped for longer than the deadline, and continued: not hung.
        "subprocess.Popen(f'sleep 0.3; kill -STOP {os.getpid()}; sleep 3; "
        "kill -CONT {os.getpid()}', shell=True); time.sleep(0.8); watchdog.at('next'); "
        "time.sleep(0.3)",
    ],
)
def test_the_watchdog_leaves_what_moves(body, tmp_path):
    done = watch(tmp_path, body)
    assert (done.returncode, done.stderr) == (0, "")


def test_no_deadline_no_watchdog(tmp_path):
    code = f"""
        import threading
        from pathlib import Path
        from uniface_jax.train.watchdog import Watchdog
        with Watchdog(0, Path({str(tmp_path)!r}), "", 1) as watchdog:
            assert threading.active_count() == 1
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], cwd=ROOT, check=True)


def test_a_full_disk_does_not_stop_the_log(small_disk, capsys):
    with RunLog(small_disk, 0, 100) as log:
        filler = fill(small_disk)
        for step in range(1, 2000):
            log.scalars(step, {"loss": float(step), "other": float("nan")})
            if step == 1800:
                filler.unlink()
    lines = [json.loads(line) for line in (small_disk / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, 2000))
    assert lines[0] == {"step": 1, "loss": 1.0, "other": None}
    assert "metrics.jsonl: cannot be written (No space left on device)" in capsys.readouterr().err


def test_lines_that_are_no_json_of_a_step_are_left_out_with_a_warning(tmp_path, capsys):
    good = [json.dumps({"step": step, "loss": 1.0}).encode() for step in (1, 2, 3)]
    broken = [
        b'{"step": 2, "lo\xffss": 1.0}',  # JSON but for a byte that is no UTF-8
        b'\xff{"step": 2}', b'{"step": "x"}', b'{"step": null}', b"[2]", b'"step"', b"7",
        b"[" * 5000 + b"]" * 5000, b'{"step": 2' + b"0" * 5000 + b"}",
    ]  # fmt: skip
    file = tmp_path / "metrics.jsonl"
    file.write_bytes(b"\n".join([good[0], *broken, good[1], good[2], b'{"step": 2, "lo']))
    with RunLog(tmp_path, 2, 100) as log:
        log.scalars(3, {"loss": 2.0})
    steps = [json.loads(line)["step"] for line in file.read_text().splitlines()]
    assert steps == [1, 2, 3]
    words = f"{len(broken)} lines that are no JSON of a step are left out, the first of them line 2"
    assert words in capsys.readouterr().err


def make_config(**keys):
    config = configs.base()
    with config.unlocked():
        config.update(keys)
    return config


def test_micro_batches_follow_the_devices(tmp_path):
    config = make_config(batch_size=48, micro_batches=3)
    assert batch_norm_groups.adapt(config, tmp_path, 8).micro_batches == 3  # a new run
    batch_norm_groups.record(config, tmp_path, 8)  # groups of 2
    for devices, micro_batches in ((8, 3), (4, 6), (1, 24), (6, 4), (24, 1)):
        adapted = batch_norm_groups.adapt(config, tmp_path, devices)
        assert adapted.micro_batches == micro_batches
        configs.check_batch(adapted, devices)
        batch_norm_groups.record(adapted, tmp_path, devices)  # changes nothing
    assert config.micro_batches == 3
    with pytest.raises(UserError, match=r"by 5 devices; resume on 1, 2, 3, 4, 6, 8, 12, 24 dev"):
        batch_norm_groups.adapt(config, tmp_path, 5)
    config.micro_batches = 2
    with pytest.raises(UserError, match=r"micro_batches=2: .* see 2 samples; on 4 .* takes 6"):
        batch_norm_groups.adapt(config, tmp_path, 4)


@pytest.mark.parametrize(
    ("batch_size", "devices", "words"),
    [
        (512, 8, "this batch_size goes with micro_batches=1, 2, 4, 8, 16, 32"),
        (512, 6, "take batch_size=504 or 522, or other devices"),
        (4, 8, "take batch_size=24, or other devices"),
    ],
)
def test_a_batch_that_does_not_divide_comes_with_ways_out(batch_size, devices, words):
    config = make_config(batch_size=batch_size, micro_batches=3)
    with pytest.raises(UserError, match=words):
        configs.check_batch(config, devices)


def guard(tmp_path, skip, limit=3):
    return FiniteGuard(tmp_path, SyntheticSource(3, 40), skip, limit)


BAD = {"loss": float("nan"), "grad_norm": 1.0}
PART = {"index": [5, 6], "label": [1, 2]}


def test_not_finite_stops_with_the_batchs_records(tmp_path):
    with pytest.raises(
        NotFiniteError, match=r"step 7: loss nan.*nonfinite-0.jsonl.*checkpoint is 4"
    ):
        guard(tmp_path, skip=False).check(7, BAD, PART, 4)
    line = json.loads((tmp_path / "nonfinite-0.jsonl").read_text())
    assert line["step"] == 7
    assert line["records"] == [5, 6]
    assert line["labels"] == [1, 2]


def test_skipped_steps_are_counted_until_they_are_too_many(tmp_path):
    looks = guard(tmp_path, skip=True)
    assert looks.check(1, {"loss": 1.0, "grad_norm": 1.0}, PART, None) is None
    assert looks.check(2, BAD, PART, None).endswith("skipped, 1 so far")
    assert looks.check(3, BAD, PART, None).endswith("skipped, 2 so far")
    assert looks.check(4, {"loss": 1.0, "grad_norm": 1.0}, PART, None) is None
    assert looks.check(5, BAD, PART, None).endswith("skipped, 3 so far")
    assert looks.check(6, BAD, PART, None).endswith("skipped, 4 so far")
    with pytest.raises(NotFiniteError, match=r"3 in a row \(config.nonfinite.limit\)"):
        looks.check(7, BAD, PART, None)
    assert len((tmp_path / "nonfinite-0.jsonl").read_text().splitlines()) == 5


def test_a_silent_run_shows_that_it_is_alive(tmp_path, capsys, monkeypatch):
    now = [100.0]
    monkeypatch.setattr("uniface_jax.train.run_log.time.monotonic", lambda: now[0])
    with RunLog(tmp_path, 0, 90) as log:
        log.alive(1, {})  # the first step is said in any case
        log.alive(2, {"loss": 3.0})
        now[0] += 31
        log.alive(3, {"loss": 2.0})
        log.line("step 4/90 and all that")
        log.alive(5, {"loss": 1.0})
    lines = ["step 1/90", "step 3/90  loss 2.0000", "step 4/90 and all that"]
    assert capsys.readouterr().out.splitlines() == lines
