"""Memory of steps on CPUs: kept from one to the next, unless that is left out."""

import ctypes
import os
import subprocess
import sys

import jax
import pytest

from uniface_jax.runtime import kept_memory

GLIBC = pytest.mark.skipif(
    not hasattr(ctypes.CDLL(None), "gnu_get_libc_version"), reason="glibc's allocator alone"
)

# Page faults of steps that take 64 MB each, 16384 pages, before and after memory is kept.
STEPS = """
import resource
import jax
from uniface_jax.runtime import kept_memory

kept_memory.run_steps_alone()
step = jax.jit(lambda x: jax.numpy.sum(jax.numpy.cumsum(x).reshape(2, -1)[::-1]))
x = jax.numpy.ones(2**24)

def faults():
    step(x).block_until_ready()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    step(x).block_until_ready()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

before = faults()
kept_memory.keep()
print(before, faults())
"""


def faults_of_steps(**settings):
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("MALLOC_", "GLIBC_"))}
    done = subprocess.run(
        [sys.executable, "-c", STEPS],
        env=environment | settings,
        stdout=subprocess.PIPE,
        check=True,
    )
    return map(int, done.stdout.split())


@GLIBC
def test_what_a_step_gave_back_is_kept_for_the_next():
    before, kept = faults_of_steps()
    assert before > 10_000
    assert kept < 1_000


@GLIBC
@pytest.mark.slow
def test_the_switch_gives_all_memory_back():
    before, after = faults_of_steps(**{kept_memory.SWITCH: "0"})
    assert min(before, after) > 10_000


@GLIBC
@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [
        (kept_memory.SWITCH, "0", False),
        (kept_memory.SWITCH, "1", True),
        ("MALLOC_ARENA_MAX", "2", False),
        ("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1", False),
        ("GLIBC_TUNABLES", "glibc.rtld.nns=2", True),
    ],
)
def test_the_switch_and_the_users_settings_go_first(name, value, wanted, monkeypatch):
    for other in [key for key in os.environ if key.startswith(("MALLOC_", "GLIBC_"))]:
        monkeypatch.delenv(other)
    monkeypatch.setenv(name, value)
    assert kept_memory.is_wanted() is wanted


class OtherLibrary:
    """A C library that is not glibc: it knows neither its version nor mallopt."""


def test_another_c_library_is_left_alone(monkeypatch):
    monkeypatch.setattr(kept_memory, "_libc", OtherLibrary)
    monkeypatch.setattr(jax.config, "update", lambda *_: pytest.fail("nothing is to be set"))
    assert not kept_memory.is_wanted()
    kept_memory.run_steps_alone()
    kept_memory.keep()
    kept_memory.give_back()


class Recording:
    """A glibc that keeps in mind which settings it was given."""

    gnu_get_libc_version = None

    def __init__(self):
        self.set = []

    def mallopt(self, *setting):
        self.set.append(setting)


def test_a_process_whose_steps_overlap_keeps_nothing(monkeypatch):
    libc = Recording()
    monkeypatch.setattr(kept_memory, "_libc", lambda: libc)
    kept_memory.keep()
    assert libc.set == []
