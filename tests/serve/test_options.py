"""The command: what it refuses before it serves, and how it is ended."""

import os
import signal
import socket
import subprocess
import sys

import httpx
import numpy as np
import pytest

from tests.helpers.onnx_graphs import face_network
from tests.helpers.serving import face
from uniface_jax import Gallery


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--host=0.0.0.0", "--hosts=a"], "a token is missing"),
        (["--held_megabytes=1", "--max_megabytes=2"], "less than --max_megabytes=2"),
        (["--noalign", "--detector=x"], "--detector: only with --align"),
        (["--gallery=g"], "g/manifest.json"),
        (["--token_file=none"], "none: No such file"),
        (["--noalign"], "m.onnx: no such model"),
    ],
)
def test_bad_choices_are_one_line(flags, words, run_cli, tmp_path):
    done = run_cli("serve", "--model=m.onnx", *flags, cwd=tmp_path)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert words in line


@pytest.mark.slow
def test_a_model_must_say_what_it_wants_and_be_the_gallerys(run_cli, tmp_path):
    model = face_network(tmp_path / "face.onnx")
    done = run_cli("serve", f"--model={model}", "--noalign")
    assert (done.returncode, "--input_scale" in done.stderr) == (2, True)
    others = {"name": "other", "sha256": "0" * 64, "description": "d", "align": "no"}
    Gallery.build(tmp_path / "g", np.eye(8, dtype=np.float32), list("abcdefgh"), model=others)
    given = [f"--model={model}", "--input_scale=unit", f"--gallery={tmp_path}/g"]
    done = run_cli("serve", *given)
    assert (done.returncode, "another one" in done.stderr) == (2, True)
    done = run_cli("serve", f"--model={model}", "--input_scale=unit", "--noalign", "--far=0.1")
    assert (done.returncode, "only with --calibration" in done.stderr) == (2, True)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        given = [f"--model={model}", "--input_scale=unit", "--noalign", f"--port={port}"]
        done = run_cli("serve", *given)
    assert (done.returncode, f"--port={port}" in done.stderr) == (2, True)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_serves_until_a_signal(number, tmp_path):
    model = face_network(tmp_path / "face.onnx")
    command = [
        sys.executable, "-m", "uniface_jax.serve", f"--model={model}", "--input_scale=unit",
        "--noalign", "--port=0",
    ]  # fmt: skip
    environment = {**os.environ, "UNIFACE_TOKEN": "0123456789abcdef"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=environment, **pipes) as process:
        try:
            line = process.stdout.readline()
            url = line.removeprefix("serving on ").strip()
            with httpx.Client(base_url=url, timeout=60) as client:
                assert client.post("/embed", files={"images": face(0)}).status_code == 401
                client.headers["Authorization"] = "Bearer 0123456789abcdef"
                assert client.post("/embed", files={"images": face(0)}).status_code == 200
        finally:
            process.send_signal(number)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (0, "ended\n", "")
