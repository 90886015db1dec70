"""What is free on this machine, by what its system says."""

import resource

import jax
import pytest

from uniface_jax.runtime import memory

GB = 10**9


@pytest.fixture
def system(tmp_path, monkeypatch):
    """A folder in which the system's files are written by a test; 8 GB and 1 GB of swap free."""
    kib = 8 * GB // 1024
    meminfo = tmp_path / "meminfo"
    meminfo.write_text(f"MemTotal: 99 kB\nMemAvailable: {kib} kB\nSwapFree: {GB // 1024} kB\n")
    monkeypatch.setattr(memory, "_MEMINFO", meminfo)
    groups = [(tmp_path, *names) for _, *names in memory._CGROUPS]
    monkeypatch.setattr(memory, "_CGROUPS", groups)
    return tmp_path


def test_a_machine_without_limits(system):
    assert memory.free_bytes() == pytest.approx(9 * GB, abs=2048)
    (system / "memory.max").write_text("max\n")
    (system / "memory.current").write_text(f"{GB}\n")
    assert memory.free_bytes() == pytest.approx(9 * GB, abs=2048)


def test_the_limit_of_a_container_without_the_pages_of_files(system):
    (system / "memory.max").write_text(f"{4 * GB}\n")
    (system / "memory.current").write_text(f"{3 * GB}\n")
    assert memory.free_bytes() == GB
    (system / "memory.stat").write_text(f"anon 5\nfile {2 * GB}\nshmem {GB // 2}\n")
    assert memory.free_bytes() == GB + 3 * GB // 2
    (system / "memory.limit_in_bytes").write_text(f"{GB}\n")
    (system / "memory.usage_in_bytes").write_text(f"{2 * GB}\n")
    assert memory.free_bytes() == 0


def test_the_limit_of_the_process(system, monkeypatch):
    (system / "statm").write_text("1000 1 1 1 0 1 0\n")
    monkeypatch.setattr(memory, "_STATM", system / "statm")
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (2 * GB, 3 * GB))
    assert memory.free_bytes() == 2 * GB - 1000 * resource.getpagesize()
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (GB // 1000, -1))
    assert memory.free_bytes() == 0


def test_a_system_that_says_nothing(system):
    for content in ("", "MemAvailable: much\n", "\0"):
        (system / "meminfo").write_text(content)
        assert memory.free_bytes() is None


def test_a_program_says_what_it_works_in():
    compiled = jax.jit(lambda x: jax.numpy.sin(x @ x).sum()).lower(jax.numpy.ones((64, 64)))
    assert memory.working_bytes(compiled.compile()) >= 0
    assert memory.working_bytes(None) is None


def test_a_lack_of_room_is_told_from_other_errors():
    assert memory.is_exhausted(jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory"))
    assert not memory.is_exhausted(jax.errors.JaxRuntimeError("INTERNAL"))
    assert not memory.is_exhausted(ValueError("RESOURCE_EXHAUSTED"))
