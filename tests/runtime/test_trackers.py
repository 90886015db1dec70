"""Weights & Biases and MLflow, where their extras are installed, with no network to be had."""

import json
import sqlite3
import struct
import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow

# Two parts of one run, told as training tells them. What leaves the machine is refused and printed.
RUN = """
import sys
from pathlib import Path

from uniface_jax.config import base
from uniface_jax.train import hooks

def refuse(event, given):
    if event == "socket.getaddrinfo" and given[0] not in ("localhost", "127.0.0.1", "::1", None):
        print("asked for", given[0], flush=True)
        raise PermissionError(given[0])
    if event == "socket.connect" and isinstance(given[1], tuple):
        if given[1][0] not in ("127.0.0.1", "::1"):
            print("connects to", given[1], flush=True)
            raise PermissionError(given[1])

sys.addaudithook(refuse)
name, workdir = sys.argv[1], Path(sys.argv[2])
config = base()
config.hooks.names = (name,)
hooks.load(config)
for first in (0, 2):
    with hooks.create(config, workdir, first, True) as told:
        for step in (first + 1, first + 2, first + 3):
            told.step(step, {"loss": 9.0})
            told.log(step, {"loss": 1.0 / step, "learning_rate": float("nan")})
        told.evaluation(first + 3, {"a(b)/auc": 0.75})
"""


def two_parts(name, workdir):
    """Return the id of a run that `name` was told of, which printed nothing."""
    workdir.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", RUN, name, str(workdir)], capture_output=True, text=True, timeout=300
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    return (workdir / "run_id").read_text().strip()


def test_wandb_writes_both_parts_under_one_id(tmp_path):
    pytest.importorskip("wandb")
    run_id = two_parts("wandb", tmp_path / "run")
    parts = sorted((tmp_path / "run/wandb").glob("offline-run-*"))
    assert len(parts) == 2
    logged = []
    for part in parts:
        assert part.name.endswith(run_id)
        logged += _rows(part / f"run-{run_id}.wandb")
    steps = [(row["step"], row["loss"]) for row in logged if "loss" in row]
    assert steps == [(step, 1 / step) for step in (1, 2, 3, 3, 4, 5)]
    assert [row["step"] for row in logged if row.get("eval/a(b)/auc") == 0.75] == [3, 5]


def _records(content):
    """Return the records of a .wandb file: LevelDB's log, in blocks of 32 KiB, behind a header."""
    position, found, part = 7, [], b""
    while position < len(content):
        left = 32768 - position % 32768
        if left < 7:
            position += left
            continue
        size, kind = struct.unpack("<HB", content[position + 4 : position + 7])
        part += content[position + 7 : position + 7 + size]
        position += 7 + size
        if kind in (1, 4):  # whole, or the last piece
            found.append(part)
            part = b""
    return found


def _rows(path):
    """Return the rows of history in a .wandb file."""
    from wandb.proto import wandb_internal_pb2

    rows = []
    for content in _records(path.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(content)
        if record.WhichOneof("record_type") == "history":
            rows.append(
                {
                    item.key or ".".join(item.nested_key): json.loads(item.value_json)
                    for item in record.history.item
                }
            )
    return rows


def test_mlflow_continues_its_run_in_a_file_of_the_workdir(tmp_path):
    pytest.importorskip("mlflow")
    run_id = two_parts("mlflow", tmp_path / "run")
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["mlflow.db", "run_id"]
    with sqlite3.connect(tmp_path / "run/mlflow.db") as store:
        ((name, status),) = store.execute("select name, status from runs")
        ((tag,),) = store.execute("select value from tags where key = 'uniface_jax.run'")
        losses = store.execute("select step, value from metrics where key = 'loss' order by step")
        steps = losses.fetchall()
        evaluated = store.execute("select step from metrics where key = 'eval/a_b_/auc'").fetchall()
        given = dict(store.execute("select key, value from params").fetchall())
    assert (name, status, tag) == ("run", "FINISHED", run_id)
    assert sorted(set(steps)) == [(step, 1 / step) for step in (1, 2, 3, 4, 5)]
    assert sorted(evaluated) == [(3,), (5,)]
    assert given["optim.lr"] == "0.1"
