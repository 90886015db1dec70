"""Where compiled programs are kept, and where not: they run."""

import jax
import pytest

from uniface_jax.runtime import compilation_cache


@pytest.fixture
def named(monkeypatch):
    """Set the folder that JAX was told of; it is as before afterwards."""
    before = jax.config.jax_compilation_cache_dir
    yield lambda folder: jax.config.update("jax_compilation_cache_dir", folder)
    jax.config.update("jax_compilation_cache_dir", before)


@pytest.mark.parametrize("by_jax", [False, True])
def test_a_folder_of_others_is_not_used(named, tmp_path, caplog, by_jax):
    folder = tmp_path / "programs"
    folder.mkdir()
    folder.chmod(0o777)
    named(str(folder) if by_jax else None)
    assert compilation_cache.enable("" if by_jax else str(folder)) is None
    assert jax.config.jax_compilation_cache_dir is None
    assert f"not kept: {folder} can be written by others" in caplog.text


def test_a_folder_that_cannot_be_made_is_said(named, tmp_path, caplog):
    named(None)
    (tmp_path / "file").write_text("")
    assert compilation_cache.enable(str(tmp_path / "file" / "programs")) is None
    assert "not kept: " in caplog.text


def test_without_a_home_none_are_kept(named, monkeypatch, caplog):
    named(None)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(compilation_cache.Path, "home", no_home)
    assert compilation_cache.enable("auto") is None
    assert "no home folder" in caplog.text


def no_home():
    raise RuntimeError("Could not determine home directory.")
