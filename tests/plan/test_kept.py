"""Compiled programs that are kept: found again, and never believed when damaged."""

import hashlib
import json
import zlib

import jax
import pytest

from uniface_jax import config as configs
from uniface_jax.plan import compilation, kept, program, targets, topology

PROGRAM = kept.Program(program.CompiledMemory(12, 34), "HloModule x\n" * 100, 5.5)


def test_a_program_is_found_as_it_was_kept(tmp_path):
    assert kept.read(tmp_path, "one") is None
    kept.write(tmp_path, "one", PROGRAM)
    assert kept.read(tmp_path, "one") == PROGRAM


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "folder", "digest"])
def test_a_damaged_one_is_told_and_not_taken(damage, tmp_path, caplog):
    kept.write(tmp_path, "one", PROGRAM)
    file = tmp_path / "one"
    content = file.read_bytes()
    if damage == "folder":
        file.unlink()
        file.mkdir()
    else:
        middle = len(content) // 2
        flipped = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
        changed = {"cut": content[:-1], "flipped": flipped, "empty": b"", "digest": content[1:]}
        file.write_bytes(changed[damage])
    assert kept.read(tmp_path, "one") is None
    assert f"{file}: damaged" in caplog.text
    assert caplog.text.count("\n") == 1


@pytest.mark.parametrize(
    "record", [[], {}, {"memory": {}}, {"memory": None, "text": "", "seconds": 1}, {"memory": "x"}]
)
def test_another_record_is_damaged_too(record, tmp_path, caplog):
    content = zlib.compress(json.dumps(record).encode())
    digest = hashlib.sha256(content).hexdigest().encode()
    (tmp_path / "one").write_bytes(digest + b"\n" + content)
    assert kept.read(tmp_path, "one") is None
    assert "damaged" in caplog.text


def test_no_more_is_unpacked_than_a_program_can_have(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(kept, "MAX_BYTES", 1000)
    kept.write(tmp_path, "one", PROGRAM)
    assert kept.read(tmp_path, "one") is None
    assert "more than 1000 bytes" in caplog.text


def test_what_cannot_be_kept_is_told(tmp_path, caplog):
    (tmp_path / "file").touch()
    kept.write(tmp_path / "file", "one", PROGRAM)
    assert "is not kept" in caplog.text


@pytest.fixture
def compilations(monkeypatch, tmp_path):
    """Let a target's step be a small program of this machine, and list when it is compiled."""
    made, compile_ = [], jax.stages.Lowered.compile

    def noted(self, options=None):
        made.append(self)
        return compile_(self, options)

    small = jax.jit(lambda x: x + 1).lower(1.0)
    monkeypatch.setenv("UNIFACE_OWN_FOLDER", str(tmp_path))
    monkeypatch.setattr(topology, "devices_of", lambda target: jax.devices()[:1])
    monkeypatch.setattr(topology, "options", lambda target: {})
    monkeypatch.setattr(program, "lowered", lambda recipe, devices: small)
    monkeypatch.setattr(jax.stages.Lowered, "compile", noted)
    return made


def test_a_program_is_compiled_once_for_each_compiler(compilations, tmp_path, monkeypatch):
    recipe, target = configs.base(), targets.parse("h100", 1)
    first, again = (compilation.compiled_here(recipe, target) for _ in range(2))
    assert first == again
    assert len(compilations) == 1
    compilation.compiled_here(recipe, targets.parse("h200", 1))
    assert len(compilations) == 2
    monkeypatch.setenv("XLA_FLAGS", "--xla_gpu_something=1")
    compilation.compiled_here(recipe, target)
    assert len(compilations) == 3
    for file in (tmp_path / "programs").iterdir():
        file.write_bytes(b"nothing")
    anew = compilation.compiled_here(recipe, target)
    assert anew._replace(seconds=0) == first._replace(seconds=0)
    assert len(compilations) == 4
